// Embeddings of several texts, and how alike they are.

/** The product of two vectors; sparse ones are pairs of lists. */
function product(one, other) {
  if (!one.sparse) return (one.values ?? []).reduce((sum, value, index) => sum + value * other.values[index], 0);
  const weights = new Map(one.sparse.indices?.map((index, place) => [index, one.sparse.values[place]]));
  return (other.sparse.indices ?? []).reduce(
    (sum, index, place) => sum + (weights.get(index) ?? 0) * other.sparse.values[place], 0);
}

/** The cosine of the angle between two embeddings; 0 for one without length. */
function cosine(one, other) {
  const lengths = Math.sqrt(product(one, one) * product(other, other));
  return lengths ? product(one, other) / lengths : 0;
}

class SimilarityView {
  #model;
  #work = new Work();
  #texts = textArea({ rows: "5", required: true }, "a cat sat on the mat\na kitten was sitting there\nthe markets fell again");
  #prompt = null;
  #table = element("div", { class: "scroll", "aria-live": "polite" });
  #shown = null;

  constructor(model) {
    this.#model = model;
    const names = Object.keys(model.embedding.prompts ?? {});
    if (names.length) {
      this.#prompt = select([["", "none"], ...names.map((name) => [name, name])]);
      this.#prompt.value = model.embedding.defaultPromptName ?? "";
    }
    this.root = element("form", { class: "card", onsubmit: (event) => this.#submit(event) },
      field("Texts, one a line", this.#texts),
      element("div", { class: `row${this.#prompt ? "" : " actions"}` }, this.#prompt && field("Prompt", this.#prompt),
        element("button", { type: "submit" }, "Compare"), element("span", { class: "note" }, "Ctrl + Enter")),
      this.#table);
    darkScheme.addEventListener("change", () => this.#shown && this.#show(...this.#shown));
  }

  #submit(event) {
    event.preventDefault();
    const inputs = this.#texts.value.split("\n").filter((text) => text.trim());
    this.#work.start(async (signal) => {
      const request = { modelName: this.#model.name, modelVersion: this.#model.version, inputs };
      if (this.#prompt) request.promptName = this.#prompt.value;
      const { embeddings } = await call("EncodingService/Embed", request, signal);
      this.#show(inputs, embeddings);
    });
  }

  #show(texts, embeddings) {
    this.#shown = [texts, embeddings];
    const { stops } = mapColours();
    const number = (index) => element("th", { scope: "col" }, String(index + 1));
    const cell = (one, other) => {
      const likeness = cosine(embeddings[one], embeddings[other]);
      const made = element("td", { class: "cell" }, likeness.toFixed(3));
      paint(made, likeness, stops);
      return made;
    };
    this.#table.replaceChildren(element("table", {},
      element("caption", { class: "sr-only" }, "Cosine similarity of the texts"),
      element("thead", {}, element("tr", {}, element("td"), ...texts.map((_, index) => number(index)))),
      element("tbody", {}, ...texts.map((text, row) => element("tr", {},
        element("th", { scope: "row", title: text }, element("small", {}, `${row + 1} `), element("bdi", {}, text)),
        ...texts.map((_, column) => cell(row, column)))))));
  }
}
