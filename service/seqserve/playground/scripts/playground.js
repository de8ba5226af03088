// The page as a whole: which models there are, and what can be done with the one that is chosen.

const VIEWS = [
  ["TASK_GENERATE", "Generate", GenerationView],
  ["TASK_EMBED", "Similarity", SimilarityView],
  ["TASK_CLASSIFY", "Classify", ClassificationView],
  ["TASK_CLASSIFY_TOKENS", "Tag", TaggingView],
  ["TASK_RERANK", "Rerank", RerankingView],
  ["TASK_FILL_MASK", "Fill masks", MaskFillingView],
];
const modelChoice = document.getElementById("model");
const tabs = document.getElementById("tabs");
const panel = document.getElementById("panel");
const listing = new Work();
let models = [];

/** The views of a model: of its tasks, and of its attention where no task shows it. */
function viewsOf(model) {
  const views = VIEWS.filter(([task]) => model.tasks?.includes(task)).map(([, name, View]) => [name, View]);
  if (model.attention && !model.tasks?.includes("TASK_GENERATE")) views.push(["Attention", EncoderAttentionView]);
  return views;
}

function showFacts(model) {
  const { attention } = model;
  const facts = [
    ["Family", model.family], ["Numbers", model.dtype], ["Longest source", `${model.maxSourceLength} tokens`],
    ["Layers", attention && [attention.encoderLayerCount, attention.decoderLayerCount].filter(Boolean).join(" + ")],
    ["Heads", attention?.headCount],
    ["Attention", attention ? undefined : "not exported"],
  ].filter(([, value]) => value !== undefined);
  document.getElementById("facts").replaceChildren(...facts.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))));
}

/** Shows a model; its views keep what was typed while their tabs are changed. */
function showModel(model) {
  showError(null);
  showFacts(model);
  const views = viewsOf(model);
  const panels = views.map(([name], index) => element("div", { role: "tabpanel", id: `panel-${index}`, "aria-labelledby": `tab-${index}`, hidden: true }));
  const open = (chosen) => {
    [...tabs.children].forEach((tab, index) => {
      tab.setAttribute("aria-selected", String(index === chosen));
      tab.tabIndex = index === chosen ? 0 : -1;
      panels[index].hidden = index !== chosen;
    });
    if (!panels[chosen].children.length) panels[chosen].append(new views[chosen][1](model).root);
  };
  tabs.replaceChildren(...views.map(([name], index) => element("button", {
    type: "button", role: "tab", id: `tab-${index}`, "aria-controls": `panel-${index}`,
    onclick: () => open(index),
    onkeydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const to = (index + step + views.length) % views.length;
      open(to);
      tabs.children[to].focus();
    },
  }, name)));
  tabs.hidden = !views.length;
  panel.replaceChildren(...panels);
  if (views.length) open(0);
}

async function listModels() {
  await listing.start(async (signal) => {
    ({ models = [] } = await call("ModelService/ListModels", {}, signal));
    offer(modelChoice, models.map((model, index) => [String(index), `${model.name} · ${model.version}`]));
    modelChoice.disabled = !models.length;
    if (!models.length) throw new CallError({ status: "NOT_FOUND", message: "the server serves no models" });
    showModel(models[Number(modelChoice.value)]);
    announce(`${models.length} models`);
  });
}

modelChoice.addEventListener("change", () => showModel(models[Number(modelChoice.value)]));
document.getElementById("access").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(document.getElementById("token").value.trim());
  listModels();
});
listModels();
