// Text to text: what is written streams in, and then shows what it looked at.

const NUMBERS = [
  ["maxNewTokens", "Longest target, tokens", { min: 1 }],
  ["numBeams", "Beams", { min: 1 }],
  ["numReturnSequences", "Hypotheses", { min: 1 }],
  ["lengthPenalty", "Length penalty", { step: "any" }],
  ["temperature", "Temperature", { step: "any" }],
  ["topK", "Top k", { min: 0 }],
  ["topP", "Top p", { step: "any" }],
  ["seed", "Seed", { min: 0 }],
];
const REASONS = {
  FINISH_REASON_EOS: "ended by itself",
  FINISH_REASON_LENGTH: "cut at the longest target",
  FINISH_REASON_STOP_SEQUENCE: "ended by a stop sequence",
  FINISH_REASON_TIME: "ended by time",
};

class GenerationView {
  #model;
  #work = new Work();
  #source = textArea({ rows: "4", placeholder: "Type a text …", required: true });
  #prefix = element("input", { dir: "auto", spellcheck: "false", placeholder: "none" });
  #languages = {};
  #numbers = {};
  #samples = element("input", { type: "checkbox" });
  #looks = element("input", { type: "checkbox" });
  #stop = element("button", { type: "button", class: "quiet", disabled: true, onclick: () => this.#work.stop() }, "Stop");
  #output = element("div", { class: "output", dir: "auto", "data-empty": "The target appears here.", "aria-label": "Target", role: "group" });
  #facts = element("p", { class: "note", "aria-live": "off" });
  #others = element("ol", { class: "others", hidden: true });
  #attention = null;

  constructor(model) {
    this.#model = model;
    const { generation, attention } = model;
    if (attention) this.#attention = new AttentionView(model);
    this.#looks.checked = Boolean(attention);
    this.#samples.checked = Boolean(generation.doSample);
    const controls = NUMBERS.map(([name, label, limits]) => {
      const placeholder = String(generation[name] ?? (name === "seed" ? "drawn" : name === "numReturnSequences" ? 1 : 0));
      this.#numbers[name] = element("input", { type: "number", placeholder, ...limits });
      return field(label, this.#numbers[name]);
    });
    const form = element("form", { class: "card", onsubmit: (event) => this.#submit(event) },
      field("Source", this.#source),
      this.#languageRow(generation),
      element("details", {}, element("summary", {}, "How to decode"),
        element("div", { class: "options" }, ...controls, field("Target begins with", this.#prefix),
          checkField("Draw at random", this.#samples))),
      element("div", { class: "row actions" },
        element("button", { type: "submit" }, "Generate"), this.#stop,
        attention ? checkField("Show attention", this.#looks) : null,
        element("span", { class: "note" }, "Ctrl + Enter")),
      element("div", { class: "strip" }, element("span", { class: "label" }, "Target"), this.#output, this.#facts, this.#others),
    );
    this.root = element("div", {}, form, this.#attention?.root);
  }

  #languageRow(generation) {
    const { sourceLanguages = [], targetLanguages = [] } = generation;
    const choices = [
      ["sourceLanguage", "From", sourceLanguages, generation.defaultSourceLanguage],
      ["targetLanguage", "To", targetLanguages, generation.defaultTargetLanguage],
    ].filter(([, , languages]) => languages.length);
    if (!choices.length) return null;
    return element("div", { class: "row" }, ...choices.map(([name, label, languages, chosen]) => {
      this.#languages[name] = select(languages.map((language) => [language, language]));
      if (chosen) this.#languages[name].value = chosen;
      return field(label, this.#languages[name]);
    }));
  }

  #languageFields() {
    return Object.fromEntries(Object.entries(this.#languages).map(([name, control]) => [name, control.value]));
  }

  #request() {
    const options = {};
    for (const [name, control] of Object.entries(this.#numbers)) {
      if (control.value !== "") options[name] = name === "seed" ? control.value : Number(control.value);
    }
    if (this.#samples.checked !== Boolean(this.#model.generation.doSample)) options.doSample = this.#samples.checked;
    const input = { text: this.#source.value, ...this.#languageFields() };
    if (this.#prefix.value) input.targetPrefixText = this.#prefix.value;
    return { modelName: this.#model.name, modelVersion: this.#model.version, input, options };
  }

  async #submit(event) {
    event.preventDefault();
    this.#output.replaceChildren();
    this.#facts.textContent = "";
    this.#others.hidden = true;
    this.#attention?.hide();
    this.#output.setAttribute("aria-busy", "true");
    this.#stop.disabled = false;
    announce("Generating");
    const request = this.#request();
    const isDone = await this.#work.start((signal) => this.#generate(request, signal));
    if (this.#work.isRunning) return;
    this.#output.setAttribute("aria-busy", "false");
    this.#stop.disabled = true;
    announce(isDone ? `Done: ${this.#output.textContent}` : "Stopped");
  }

  async #generate(request, signal) {
    const startedAt = performance.now();
    let firstAfter = null;
    let result = null;
    for await (const { piece, result: whole } of stream("GenerationService/GenerateStream", request, signal)) {
      firstAfter ??= performance.now() - startedAt;
      if (piece?.text) this.#output.append(element("span", { class: "piece" }, piece.text));
      if (whole) result = whole;
    }
    this.#showResult(result, firstAfter, performance.now() - startedAt);
    const [best] = result.hypotheses;
    if (this.#attention && this.#looks.checked && best.tokenIds?.length) {
      await this.#attention.show({
        modelName: request.modelName, modelVersion: request.modelVersion,
        input: { text: request.input.text, ...this.#languageFields() },
        target: { tokenIds: { values: best.tokenIds } },
      });
    }
  }

  #showResult(result, firstAfter, total) {
    const [best, ...others] = result.hypotheses;
    // Pieces stop where a decoder rewrites what it has said; the result is what counts.
    if (this.#output.textContent !== (best.text ?? "")) this.#output.textContent = best.text ?? "";
    const number = best.tokenIds?.length ?? 0;
    this.#facts.textContent = [
      `${number} ${number === 1 ? "token" : "tokens"}, ${REASONS[best.finishReason] ?? best.finishReason}`,
      `first after ${firstAfter.toFixed(0)} ms, all after ${total.toFixed(0)} ms`,
      best.score !== undefined && `score ${best.score.toFixed(3)}`,
      result.seed !== undefined && `seed ${result.seed}`,
    ].filter(Boolean).join(" · ");
    this.#others.hidden = !others.length;
    this.#others.start = 2;
    this.#others.replaceChildren(...others.map(({ text = "", score }) =>
      element("li", { dir: "auto" }, text, score === undefined ? "" : element("span", { class: "note" }, `  ${score.toFixed(3)}`))));
  }
}
