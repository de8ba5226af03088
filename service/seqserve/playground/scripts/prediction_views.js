// What the heads of encoders say: labels of texts, of tokens and of pairs, orders, masked words.

/** Rows of label, bar and number, from pairs of label and score. */
function bars(scores, isWide = false) {
  const largest = Math.max(...scores.map(([, score]) => Math.abs(score)), 1e-9);
  const isShare = scores.every(([, score]) => score >= 0 && score <= 1);
  return element("ol", { class: "bars" }, ...scores.map(([label, score]) => {
    const fill = element("div", { class: "fill" });
    fill.style.setProperty("width", `${(Math.max(score, 0) / (isShare ? 1 : largest)) * 100}%`);
    return element("li", { class: isWide ? "bar wide" : "bar" },
      element("span", { dir: "auto" }, label), element("div", { class: "track", "aria-hidden": "true" }, fill),
      element("span", { class: "number" }, isShare ? formatWeight(score) : score.toFixed(2)));
  }));
}

/** What views of one form and one answer have in common. */
class PredictionView {
  #work = new Work();
  result = element("div", { "aria-live": "polite" });

  constructor(model, action, controls, ...buttons) {
    this.model = model;
    this.root = element("form", { class: "card", onsubmit: (event) => this.#submit(event) }, ...controls,
      element("div", { class: "row actions" }, element("button", { type: "submit" }, action), ...buttons, element("span", { class: "note" }, "Ctrl + Enter")),
      this.result);
  }

  /** Makes the call of the task. */
  predict(method, fields, signal) {
    return call(`EncodingService/${method}`, { modelName: this.model.name, modelVersion: this.model.version, ...fields }, signal);
  }

  #submit(event) {
    event.preventDefault();
    this.#work.start(async (signal) => this.result.replaceChildren(await this.answer(signal)));
  }
}

class ClassificationView extends PredictionView {
  constructor(model) {
    const text = textArea({ rows: "3", required: true, placeholder: "Type a text …" });
    const pair = textArea({ rows: "2", placeholder: "for models that compare two texts" });
    super(model, "Classify", [field("Text", text), field("Second text", pair)]);
    this.answer = async (signal) => {
      const input = { text: text.value, ...(pair.value ? { textPair: pair.value } : {}) };
      const { results } = await this.predict("Classify", { inputs: [input] }, signal);
      return bars(results[0].labels.map(({ label, score = 0 }) => [label, score]));
    };
  }
}

class TaggingView extends PredictionView {
  constructor(model) {
    const text = textArea({ rows: "4", required: true, placeholder: "Type a text with names …" });
    const strategy = select([
      ["AGGREGATION_STRATEGY_SIMPLE", "Neighbouring tokens together"], ["AGGREGATION_STRATEGY_FIRST", "Words, by their first token"],
      ["AGGREGATION_STRATEGY_AVERAGE", "Words, by their mean"], ["AGGREGATION_STRATEGY_MAX", "Words, by their surest token"],
      ["AGGREGATION_STRATEGY_NONE", "Single tokens"],
    ]);
    super(model, "Tag", [field("Text", text), element("div", { class: "row" }, field("Entities are", strategy))]);
    this.answer = async (signal) => {
      const fields = { inputs: [text.value], aggregationStrategy: strategy.value };
      const { results } = await this.predict("ClassifyTokens", fields, signal);
      return this.#mark(text.value, results[0].entities ?? []);
    };
  }

  #mark(text, entities) {
    const characters = Array.from(text);
    const parts = [];
    let end = 0;
    for (const { label, score = 0, startOffset = 0, endOffset = 0 } of entities) {
      parts.push(characters.slice(end, startOffset).join(""));
      const part = characters.slice(Math.max(startOffset, end), endOffset).join("");
      parts.push(element("mark", { title: formatWeight(score) }, part, element("small", {}, label)));
      end = Math.max(end, endOffset);
    }
    parts.push(characters.slice(end).join(""));
    const note = entities.length ? null : element("p", { class: "note" }, "No entities.");
    return element("div", {}, element("p", { class: "tagged", dir: "auto" }, ...parts), note);
  }
}

class RerankingView extends PredictionView {
  constructor(model) {
    const query = element("input", { dir: "auto", required: true, placeholder: "What is looked for" });
    const documents = textArea({ rows: "6", required: true, placeholder: "One document a line" });
    super(model, "Rank", [field("Query", query), field("Documents, one a line", documents)]);
    this.answer = async (signal) => {
      const lines = documents.value.split("\n").filter((line) => line.trim());
      const { results } = await this.predict("Rerank", { query: query.value, documents: lines }, signal);
      return bars(results.map(({ index = 0, score = 0 }) => [lines[index], score]), true);
    };
  }
}

class MaskFillingView extends PredictionView {
  constructor(model) {
    const mask = model.maskFilling.maskToken;
    const text = textArea({ rows: "3", required: true, placeholder: `A text with ${mask}` });
    const insert = element("button", {
      type: "button", class: "quiet",
      onclick: () => { text.setRangeText(mask, text.selectionStart, text.selectionEnd, "end"); text.focus(); },
    }, `Insert ${mask}`);
    super(model, "Fill", [field("Text", text)], insert);
    this.answer = async (signal) => {
      const { results } = await this.predict("FillMask", { inputs: [text.value] }, signal);
      return element("div", { class: "columns" }, ...results[0].masks.map(({ tokens = [] }, index) =>
        element("div", { class: "strip" }, element("h3", {}, `Mask ${index + 1}`),
          bars(tokens.map(({ text: word = "", score = 0 }) => [word, score])))));
    };
  }
}

/** Self-attention of an encoder, which needs nothing but a text, or a pair where the model reads pairs. */
class EncoderAttentionView {
  #work = new Work();

  constructor(model) {
    const text = textArea({ rows: "3", required: true }, "the cat sat on the mat");
    const readsPairs = ["TASK_CLASSIFY", "TASK_RERANK"].some((task) => model.tasks.includes(task));
    const pair = readsPairs ? textArea({ rows: "2", placeholder: "none" }) : null;
    const attention = new AttentionView(model);
    const show = (event) => {
      event.preventDefault();
      const input = { text: text.value, ...(pair?.value ? { textPair: pair.value } : {}) };
      this.#work.start(() => attention.show({ modelName: model.name, modelVersion: model.version, input }));
    };
    const actions = element("div", { class: "row actions" },
      element("button", { type: "submit" }, "Look inside"), element("span", { class: "note" }, "Ctrl + Enter"));
    this.root = element("div", {},
      element("form", { class: "card", onsubmit: show }, field("Text", text), pair && field("Second text", pair), actions),
      attention.root);
  }
}
