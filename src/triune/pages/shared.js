/** Add attributes, if the first of `rest` is an object with them, and children to an element. */
function filled(node, rest) {
  const [first, ...others] = rest;
  const hasAttributes = first?.constructor === Object;
  for (const [name, value] of Object.entries(hasAttributes ? first : {})) {
    // The page's policy forbids the attribute, not the property.
    if (name === "style") node.style.cssText = value;
    else node.setAttribute(name, value);
  }
  node.append(...(hasAttributes ? others : rest));
  return node;
}

/** An element of HTML: make("td", {class: "number"}, "3"), or make("p", "text"). */
function make(tag, ...rest) {
  return filled(document.createElement(tag), rest);
}

/** An element of SVG. */
function draw(tag, ...rest) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), rest);
}

/** A large value and what it is. */
function total(value, words, kind = "") {
  return make("div", make("div", {class: `big ${kind}`}, value), make("p", words));
}

