// Elements of the document. Text goes in as text alone: nothing here ever becomes markup.

/** Makes an element: `element("p", {class: "note", onclick: f}, "text", child)`. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(key, value);
    else if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null));
  return made;
}

let numFields = 0;

/** A control under its label. */
function field(label, control, attributes = {}) {
  control.id ||= `field-${numFields++}`;
  return element("div", { class: "field", ...attributes }, element("label", { for: control.id }, label), control);
}

/** A checkbox before its label. */
function checkField(label, control) {
  control.id ||= `field-${numFields++}`;
  return element("div", { class: "check" }, control, element("label", { for: control.id }, label));
}

/** A list to choose from: pairs of value and text. */
function select(options, attributes = {}) {
  return offer(element("select", attributes), options);
}

/** Replaces what there is to choose from; what was chosen stays so, if it is still there. */
function offer(list, options) {
  const before = list.value;
  list.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  if (options.some(([value]) => value === before)) list.value = before;
  return list;
}

/** A place for text of any script, which it takes its direction from. */
function textArea(attributes = {}, text = "") {
  const area = element("textarea", { dir: "auto", spellcheck: "false", ...attributes });
  area.value = text;
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) area.form?.requestSubmit();
  });
  return area;
}

/** Says something to those who listen to the page. */
function announce(text) {
  document.getElementById("status").textContent = text;
}
