// Heat maps of weights: rows attend, columns are attended to.

const MIN_CELL = 14;
const MAX_CELL = 38;
const MAX_LABEL = 120;
const MAX_HEIGHT = 960;
const darkScheme = matchMedia("(prefers-color-scheme: dark)");

/** The colours of the page's style, as they are now: from nothing to all. */
function mapColours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  return {
    stops: [0, 1, 2, 3].map((index) => parseColour(read(`--map-${index}`))),
    text: read("--text"), muted: read("--muted"), accent: read("--accent"), grid: read("--grid"),
  };
}

function parseColour(hex) {
  return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
}

/** The colour of a share of the largest weight, from 0 to 1. */
function colourOf(share, stops) {
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const index = Math.min(Math.floor(place), stops.length - 2);
  const mixed = stops[index].map((from, part) => from + (stops[index + 1][part] - from) * (place - index));
  return `rgb(${mixed.map(Math.round).join(" ")})`;
}

/** Gives an element such a colour, and its text one that can be read on it. */
function paint(target, share, stops) {
  const colour = colourOf(share, stops);
  const [red, green, blue] = colour.match(/\d+/g).map(Number);
  const isBright = red * 0.299 + green * 0.587 + blue * 0.114 > 118;
  target.style.setProperty("background-color", colour);
  target.style.setProperty("color", isBright ? "#12161c" : "#ffffff");
}

/** Prepares a canvas for sharp drawing at a size in CSS pixels. */
function sharpContext(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.setProperty("width", `${width}px`);
  canvas.style.setProperty("height", `${height}px`);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return context;
}

/** Fills the cells of a matrix; `matrix` has `rows`, `columns`, and `values` row by row. */
function fillCells(context, matrix, { left, top, cell, gap, colours }) {
  const largest = Math.max(matrix.largest, 1e-9);
  if (gap) {
    context.fillStyle = colours.grid;
    context.fillRect(left - gap, top - gap, matrix.columns * cell + gap, matrix.rows * cell + gap);
  }
  for (let row = 0; row < matrix.rows; row++) {
    for (let column = 0; column < matrix.columns; column++) {
      context.fillStyle = colourOf(matrix.at(row, column) / largest, colours.stops);
      context.fillRect(left + column * cell, top + row * cell, cell - gap, cell - gap);
    }
  }
}

/** A matrix of weights. */
class Matrix {
  constructor(rows, columns, values) {
    this.rows = rows;
    this.columns = columns;
    this.values = values;
    this.largest = values.reduce((most, value) => (value > most ? value : most), 0);
  }

  at(row, column) {
    return this.values[row * this.columns + column];
  }

  row(row) {
    return this.values.slice(row * this.columns, (row + 1) * this.columns);
  }
}

/** A heat map with its tokens on the axes, which mouse and arrow keys can walk through. */
class HeatMap {
  #canvas = element("canvas", { tabindex: "0", role: "img" });
  #matrix = null;
  #labels = null;
  #layout = null;
  #point = null;

  #room;

  /** `onPoint` gets row and column; `room` tells how wide a map that needs so much may become. */
  constructor(onPoint, place, room) {
    this.#room = room;
    this.root = element("div", { class: "map" }, this.#canvas);
    this.#canvas.addEventListener("mousemove", (event) => {
      const point = this.#pointAt(event.offsetX, event.offsetY);
      if (point) onPoint(...point);
    });
    this.#canvas.addEventListener("keydown", (event) => {
      const point = this.#pointAfter(event.key);
      if (!point) return;
      event.preventDefault();
      onPoint(...point);
    });
    new ResizeObserver(() => this.#draw()).observe(place);
    darkScheme.addEventListener("change", () => this.#draw());
  }

  /** Shows a matrix; `rows` and `columns` are labels. */
  show(matrix, rows, columns, name) {
    this.#matrix = matrix;
    this.#labels = { rows, columns };
    this.#point = null;
    this.#canvas.setAttribute("aria-label", `${name}: ${matrix.rows} rows, ${matrix.columns} columns. Arrow keys read the cells.`);
    this.#draw();
  }

  /** Marks a row, and a cell of it unless the column is null. */
  mark(row, column) {
    this.#point = row === null ? null : [row, column];
    this.#draw();
  }

  #draw() {
    if (!this.#matrix || !this.root.isConnected) return;
    const { rows, columns } = this.#labels;
    const colours = mapColours();
    const font = (cell) => `${cell < 18 ? 10 : 13}px ${getComputedStyle(document.documentElement).fontFamily}`;
    let context = this.#canvas.getContext("2d");
    context.font = font(MAX_CELL);
    const widest = (labels) => Math.min(MAX_LABEL, Math.max(...labels.map((label) => context.measureText(label).width))) + 10;
    const left = widest(rows);
    const top = widest(columns) * 0.83 + 8;
    const around = left + widest(columns) * 0.58;
    const room = this.#room(around + MIN_CELL * columns.length) - around;
    const cell = Math.floor(Math.min(MAX_CELL, Math.max(MIN_CELL, Math.min(room / columns.length, MAX_HEIGHT / rows.length))));
    const gap = cell > 20 ? 2 : 1;
    const width = left + cell * columns.length + widest(columns) * 0.58;
    const height = top + cell * rows.length + 4;
    context = sharpContext(this.#canvas, width, height);
    this.#layout = { left, top, cell };
    fillCells(context, this.#matrix, { left, top, cell, gap, colours });
    context.font = font(cell);
    context.textBaseline = "middle";
    const [row, column] = this.#point ?? [null, null];
    rows.forEach((label, index) => {
      context.fillStyle = index === row ? colours.accent : colours.text;
      context.textAlign = "right";
      context.fillText(shorten(context, label), left - 7, top + (index + 0.5) * cell);
    });
    columns.forEach((label, index) => {
      context.save();
      context.translate(left + (index + 0.5) * cell, top - 6);
      context.rotate(-Math.PI / 3.2);
      context.fillStyle = index === column ? colours.accent : colours.text;
      context.textAlign = "left";
      context.fillText(shorten(context, label), 0, 0);
      context.restore();
    });
    if (row === null) return;
    context.strokeStyle = colours.accent;
    context.lineWidth = 2;
    context.strokeRect(left - 1, top + row * cell - 1, cell * columns.length - gap + 2, cell - gap + 2);
    if (column !== null) {
      context.lineWidth = 3;
      context.strokeRect(left + column * cell - 1, top + row * cell - 1, cell - gap + 2, cell - gap + 2);
    }
  }

  #pointAt(x, y) {
    if (!this.#layout) return null;
    const { left, top, cell } = this.#layout;
    const column = Math.floor((x - left) / cell);
    const row = Math.floor((y - top) / cell);
    const isInside = row >= 0 && row < this.#matrix.rows && column >= 0 && column < this.#matrix.columns;
    return isInside ? [row, column] : null;
  }

  #pointAfter(key) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!steps[key] || !this.#matrix) return null;
    if (!this.#point) return [0, 0];
    const limit = (value, number) => Math.min(Math.max(value, 0), number - 1);
    const [row, column] = this.#point;
    return [
      limit(row + steps[key][0], this.#matrix.rows),
      column === null ? 0 : limit(column + steps[key][1], this.#matrix.columns),
    ];
  }
}

/** A label that fits beside its cell. */
function shorten(context, label) {
  if (context.measureText(label).width <= MAX_LABEL) return label;
  const characters = Array.from(label);
  while (characters.length && context.measureText(`${characters.join("")}…`).width > MAX_LABEL) characters.pop();
  return `${characters.join("")}…`;
}

/** A heat map without words, as small as it may be. */
function thumbnail(matrix) {
  const canvas = element("canvas", { "aria-hidden": "true" });
  const draw = () => {
    const cell = Math.max(1, Math.min(9, 110 / Math.max(matrix.rows, matrix.columns)));
    const context = sharpContext(canvas, matrix.columns * cell, matrix.rows * cell);
    fillCells(context, matrix, { left: 0, top: 0, cell, gap: 0, colours: mapColours() });
  };
  draw();
  darkScheme.addEventListener("change", () => canvas.isConnected && draw());
  return canvas;
}

/** What the colours of a map stand for. */
function legend() {
  const most = element("span", {}, "1");
  const root = element("div", { class: "legend" }, element("span", {}, "0"), element("span", { class: "scale", "aria-hidden": "true" }), most);
  return { root, show: (matrix) => { most.textContent = formatWeight(matrix.largest); } };
}
