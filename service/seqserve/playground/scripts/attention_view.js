// What attends to what: tokens to walk through, a heat map, and the heads of a layer side by side.

const KINDS = {
  ATTENTION_KIND_CROSS: "Target to source (cross)",
  ATTENTION_KIND_ENCODER_SELF: "Source to itself (encoder)",
  ATTENTION_KIND_DECODER_SELF: "Target to itself (decoder)",
};
const LAYER_COUNTS = {
  ATTENTION_KIND_CROSS: "decoderLayerCount",
  ATTENTION_KIND_ENCODER_SELF: "encoderLayerCount",
  ATTENTION_KIND_DECODER_SELF: "decoderSelfLayerCount",
};
const SHOWN = {
  alignment: "Alignment: the heads that tell it best",
  MEAN: "Mean of all layers and heads",
  MEAN_HEADS: "Mean of the heads of a layer",
  NONE: "One head",
  MAX: "Largest of all layers and heads",
  ROLLOUT: "Rollout through all layers",
};
const MAX_NAMED = 4;
const HEADS_WIDTH = 310;

class AttentionView {
  #model;
  #work = new Work();
  #subject = null;
  #answers = new Map();
  #rows = [];
  #columns = [];
  #matrix = null;
  #chosen = 0;
  #kind = select([], { onchange: () => this.#changeKind() });
  #shown = select([], { onchange: () => this.#refresh() });
  #layer = select([], { onchange: () => this.#refresh() });
  #head = select([], { onchange: () => this.#refresh() });
  #rowTokens = element("div", { class: "tokens", role: "group" });
  #columnTokens = element("div", { class: "tokens", role: "group" });
  #rowTitle = element("h3");
  #columnTitle = element("h3");
  #readout = element("p", { class: "readout", dir: "auto", "aria-live": "polite" });
  #maps = element("div", { class: "maps" });
  #map = new HeatMap((row, column) => this.#choose(row, column), this.#maps, (least) => this.#room(least));
  #legend = legend();
  #thumbnails = element("div", { class: "thumbnails", role: "group", "aria-label": "Heads of the layer" });
  #thumbnailTitle = element("h3");

  constructor(model) {
    this.#model = model;
    const { attention } = model;
    const kinds = Object.keys(KINDS).filter((kind) => attention[LAYER_COUNTS[kind]]);
    offer(this.#kind, kinds.map((kind) => [kind, KINDS[kind]]));
    const heads = Array.from({ length: attention.headCount }, (_, head) => [String(head), `Head ${head + 1}`]);
    offer(this.#head, heads);
    this.#rowTokens.addEventListener("keydown", (event) => this.#walk(event));
    this.root = element(
      "section", { class: "card attention", "aria-label": "Attention", hidden: true },
      element("h2", {}, "Attention"),
      element("div", { class: "row" },
        field("Who looks at what", this.#kind), field("Shown", this.#shown),
        field("Layer", this.#layer), field("Head", this.#head)),
      element("div", { class: "strip" }, this.#columnTitle, this.#columnTokens),
      element("div", { class: "strip" }, this.#rowTitle, this.#rowTokens),
      this.#readout,
      this.#maps,
    );
    this.#maps.append(
      element("div", { class: "strip" }, this.#map.root, this.#legend.root),
      element("div", { class: "strip heads" }, this.#thumbnailTitle, this.#thumbnails));
    this.#offerChoices();
    darkScheme.addEventListener("change", () => this.#matrix && this.#choose(this.#chosen, null));
  }

  /** Looks at one input, and one target of it where the model writes; both as in `Attend`. */
  async show(subject) {
    this.#subject = subject;
    this.#answers.clear();
    this.#chosen = 0;
    await this.#refresh();
  }

  hide() {
    this.#work.stop();
    this.root.hidden = true;
  }

  #changeKind() {
    this.#chosen = 0;
    this.#offerChoices();
    this.#refresh();
  }

  /** Offers what goes with the kind. */
  #offerChoices() {
    const { attention } = this.#model;
    const isCross = this.#kind.value === "ATTENTION_KIND_CROSS";
    const offered = Object.entries(SHOWN).filter(([name]) =>
      name === "alignment" ? isCross && attention.alignmentHeads?.length : name !== "ROLLOUT" || !isCross);
    offer(this.#shown, offered);
    const number = attention[LAYER_COUNTS[this.#kind.value]];
    const layer = Math.min(Number(this.#layer.value || number - 1), number - 1);
    const layers = Array.from({ length: number }, (_, index) => [String(index), `Layer ${index + 1} of ${number}`]);
    offer(this.#layer, layers);
    this.#layer.value = String(layer);
  }

  async #refresh() {
    if (!this.#subject) return;
    const shown = this.#shown.value;
    this.#layer.disabled = !["NONE", "MEAN_HEADS"].includes(shown);
    this.#head.disabled = shown !== "NONE";
    await this.#work.start(async (signal) => {
      const answer = await this.#ask(signal);
      const attention = answer.attentions[0];
      const matrices = toMatrices(attention);
      const matrix = shown === "alignment" ? this.#align(attention, matrices)
        : shown === "NONE" ? matrices[Number(this.#head.value)] : matrices[0];
      this.root.hidden = false;
      this.#showTokens(answer);
      this.#matrix = matrix;
      this.#showHeads(attention, matrices);
      this.#map.show(matrix, this.#rows, this.#columns, KINDS[this.#kind.value]);
      this.#legend.show(matrix);
      this.#choose(Math.min(this.#chosen, matrix.rows - 1), null);
    });
  }

  /** Asks for the weights that are to be shown; what was asked before is kept. */
  async #ask(signal) {
    const shown = this.#shown.value;
    const layer = Number(this.#layer.value);
    const request = { ...this.#subject, kinds: [this.#kind.value] };
    if (this.#kind.value === "ATTENTION_KIND_ENCODER_SELF") delete request.target;
    if (shown === "alignment") {
      request.layers = [...new Set(this.#model.attention.alignmentHeads.map((one) => one.layer ?? 0))];
    } else {
      request.reduction = `ATTENTION_REDUCTION_${shown}`;
      if (["NONE", "MEAN_HEADS"].includes(shown)) request.layers = [layer];
    }
    const key = JSON.stringify(request);
    if (!this.#answers.has(key)) this.#answers.set(key, await call("AttentionService/Attend", request, signal));
    return this.#answers.get(key);
  }

  /** The mean of the heads that export has chosen. */
  #align(attention, matrices) {
    const numHeads = attention.heads.length;
    const chosen = this.#model.attention.alignmentHeads.map(
      ({ layer = 0, head = 0 }) => matrices[attention.layers.indexOf(layer) * numHeads + head]);
    const { rows, columns } = matrices[0];
    const sums = new Float32Array(rows * columns);
    for (const { values } of chosen) values.forEach((value, index) => { sums[index] += value / chosen.length; });
    return new Matrix(rows, columns, sums);
  }

  #showTokens(answer) {
    const kind = this.#kind.value;
    const { sourceText = "", targetText = "" } = answer;
    const source = answer.sourceTokens ?? [];
    const target = answer.targetTokens ?? [];
    const pair = answer.pairTokenIndex || source.length;
    const sourceLabels = [
      ...tokenLabels(source.slice(0, pair), sourceText),
      ...tokenLabels(source.slice(pair), this.#subject.input.textPair),
    ];
    const isEncoder = kind === "ATTENTION_KIND_ENCODER_SELF";
    const isCross = kind === "ATTENTION_KIND_CROSS";
    const read = answer.decoderInputTokens ?? [];
    this.#rows = isEncoder ? sourceLabels : tokenLabels(target, targetText);
    this.#columns = isEncoder || isCross ? sourceLabels : tokenLabels(read, targetText);
    this.#rowTitle.textContent = `${isEncoder ? "Source" : "Target"}: hover or focus a token`;
    this.#columnTitle.textContent = isEncoder || isCross ? "Source: what it attends to" : "What the decoder has read: what it attends to";
    this.#rowTokens.setAttribute("aria-label", isEncoder ? "Source tokens" : "Target tokens");
    this.#columnTokens.setAttribute("aria-label", "Attended tokens");
    this.#rowTokens.dir = directionOf(isEncoder ? sourceText : targetText);
    this.#columnTokens.dir = directionOf(isEncoder || isCross ? sourceText : targetText);
    const rowTokens = isEncoder ? source : target;
    const columnTokens = isEncoder || isCross ? source : read;
    this.#rowTokens.replaceChildren(...this.#rows.map((label, row) => element("button", {
      type: "button", class: `token${rowTokens[row].isSpecial ? " special" : ""}`, tabindex: row ? "-1" : "0",
      onmouseenter: () => this.#choose(row, null), onfocus: () => this.#choose(row, null),
    }, label)));
    this.#columnTokens.replaceChildren(...this.#columns.map((label, column) => element("span", {
      class: `token${columnTokens[column].isSpecial ? " special" : ""}`,
    }, label)));
  }

  /** How wide the map may become: beside the heads, where there is room for both. */
  #room(least) {
    const whole = this.#maps.clientWidth;
    return this.#thumbnails.children.length && whole - HEADS_WIDTH >= least ? whole - HEADS_WIDTH : whole;
  }

  /** Shows the heads of the answer side by side; each can be chosen. */
  #showHeads({ layers, heads }, matrices) {
    const several = layers.length > 1;
    const isShown = matrices.length === layers.length * heads.length && matrices.length > 1;
    this.#thumbnailTitle.textContent = several ? "The heads of these layers" : `The heads of layer ${layers[0] + 1}`;
    this.#thumbnails.parentElement.hidden = !isShown;
    this.#thumbnails.replaceChildren(...(isShown ? matrices : []).map((matrix, index) => {
      const layer = layers[Math.floor(index / heads.length)];
      const head = heads[index % heads.length];
      const isChosen = this.#shown.value === "NONE" ? head === Number(this.#head.value)
        : this.#model.attention.alignmentHeads.some((one) => (one.layer ?? 0) === layer && (one.head ?? 0) === head);
      return element("button", {
        type: "button", "aria-pressed": String(isChosen), onclick: () => this.#chooseHead(layer, head),
      }, thumbnail(matrix), several ? `Layer ${layer + 1}, head ${head + 1}` : `Head ${head + 1}`);
    }));
  }

  #chooseHead(layer, head) {
    this.#shown.value = "NONE";
    this.#layer.value = String(layer);
    this.#head.value = String(head);
    this.#refresh();
  }

  /** Shows what a row attends to, and how much of it goes to a column unless that is null. */
  #choose(row, column) {
    this.#chosen = row;
    const weights = Array.from(this.#matrix.row(row));
    const largest = Math.max(...weights, 1e-9);
    const { stops } = mapColours();
    [...this.#rowTokens.children].forEach((token, index) => {
      token.classList.toggle("chosen", index === row);
      token.tabIndex = index === row ? 0 : -1;
    });
    [...this.#columnTokens.children].forEach((token, index) => {
      paint(token, weights[index] / largest, stops);
      token.classList.toggle("strong", weights[index] === largest);
      token.title = formatWeight(weights[index]);
    });
    this.#map.mark(row, column);
    const order = weights.map((_, index) => index).sort((one, other) => weights[other] - weights[one]);
    const named = column === null ? order.slice(0, MAX_NAMED) : [column];
    this.#readout.replaceChildren(
      element("strong", {}, element("bdi", {}, this.#rows[row])), " attends to ",
      ...named.flatMap((index, place) => [
        place ? ", " : "", element("bdi", {}, this.#columns[index]), ` ${formatWeight(weights[index])}`,
      ]),
    );
  }

  /** Arrow keys go from token to token, in the direction of the text. */
  #walk(event) {
    const forward = this.#rowTokens.dir === "rtl" ? "ArrowLeft" : "ArrowRight";
    const backward = this.#rowTokens.dir === "rtl" ? "ArrowRight" : "ArrowLeft";
    const last = this.#rows.length - 1;
    const to = { [forward]: Math.min(this.#chosen + 1, last), [backward]: Math.max(this.#chosen - 1, 0), Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#rowTokens.children[to].focus();
  }
}

/** The matrices of an answer, by layer and then by head. */
function toMatrices({ shape, weights = [] }) {
  const [layers, heads, rows, columns] = shape;
  const values = Float32Array.from(weights);
  return Array.from({ length: layers * heads }, (_, index) =>
    new Matrix(rows, columns, values.subarray(index * rows * columns, (index + 1) * rows * columns)));
}
