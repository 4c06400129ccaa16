const NEIGHBOURS = 3;

const seconds = value => value < 0.1 ? `${(1e3 * value).toFixed(0)} ms` : `${value.toFixed(1)} s`;
const shape = value => value.shape === null ? "" : `[${value.shape.join(", ")}]`;
const first = node => node.outputs.length ? node.outputs[0] : {name: node.name, shape: null};

function passes() {
  const rows = found.passes.map(each => make("tr",
    make("td", each.name),
    make("td", each.what, make("div", {class: each.left_out ? "left" : "soft"},
      each.left_out ? `left out: ${each.left_out}` : each.change)),
    make("td", {class: "number"}, `${each.before}`), make("td", {class: "number"}, `${each.after}`),
    make("td", {class: "number"}, seconds(each.seconds))));
  if (!rows.length) return make("p", "No pass found anything to change.");
  return make("div", {class: "wide"}, make("table", make("tr", make("th", "pass"),
    make("th", "what it did"), make("th", {class: "number"}, "before"), make("th", {class: "number"}, "after"),
    make("th", {class: "number"}, "time")), ...rows));
}

function outputs() {
  return make("table", make("tr", ...["output", "verdict", "largest error", "allowed"].map(text =>
    make("th", text))), ...found.outputs.map(each => make("tr", make("td", each.name),
      make("td", {class: each.verdict === "WRONG" ? "left" : ""}, each.verdict),
      make("td", each.error === null ? "infinite" : each.error.toPrecision(3)),
      make("td", each.allowed.toPrecision(3)))));
}

const detail = make("div", {class: "detail", role: "status", hidden: ""});
document.body.append(detail);
const cells = {before: [], after: []};

function described(node) {
  const value = each => each.name === "" ? "(left out)" :
    `${each.name} ${shape(each)}${each.is_constant ? " constant" : ""}`;
  return [`${node.op} ${node.name}`, ...node.inputs.map(each => `  reads  ${value(each)}`),
    ...node.outputs.map(each => `  gives  ${value(each)}`)].join("\n");
}

/** Show a node's inputs and outputs, and mark the nodes that it reads from, and that read from it. */
function choose(side, index) {
  for (const cell of document.querySelectorAll(".linked, .chosen")) cell.classList.remove("linked", "chosen");
  const node = found[side][index], given = new Set(node.inputs.map(each => each.name)),
    made = new Set(node.outputs.map(each => each.name));
  found[side].forEach((other, at) => {
    const reads = other.inputs.some(each => made.has(each.name)), feeds = other.outputs.some(each => given.has(each.name));
    if (reads || feeds) cells[side][at].classList.add("linked");
  });
  cells[side][index].classList.add("chosen");
  detail.textContent = described(node);
  detail.hidden = false;
}

function cell(side, index, kind) {
  if (index === null) return make("span");
  const node = found[side][index], value = first(node);
  const made = make("button", {class: `cell ${kind}`, style: `padding-left: ${8 + 14 * node.depth}px`},
    make("b", node.op), make("span", {class: "name", title: value.name}, make("bdi", value.name)),
    make("span", {class: "shape"}, shape(value)));
  made.addEventListener("click", () => choose(side, index));
  cells[side][index] = made;
  return made;
}

function counted(side) {
  const total = found.num_nodes[side === "after" ? 1 : 0], constants = total - found[side].length;
  return `${side}: ${total} nodes${constants ? `, of which ${constants} Constants are not drawn` : ""}`;
}

function graphs() {
  const all = found.rows.map(([before, after, isEqual]) => make("div", {class: "row"},
    cell("before", before, isEqual ? "" : "gone"), cell("after", after, isEqual ? "" : "new")));
  const isChanged = found.rows.map(([before, after, isEqual]) => !isEqual);
  const body = make("div");
  function draw(isWhole) {
    body.replaceChildren();
    let skipped = [];
    const flush = () => {
      if (!skipped.length) return;
      const hidden = skipped;
      const opener = make("button", {class: "skipped"}, `${hidden.length} equal nodes`);
      opener.addEventListener("click", () => opener.replaceWith(...hidden));
      body.append(opener);
      skipped = [];
    };
    all.forEach((row, index) => {
      const isNear = isWhole || isChanged.slice(Math.max(0, index - NEIGHBOURS), index + NEIGHBOURS + 1).includes(true);
      if (isNear) { flush(); body.append(row); } else skipped.push(row);
    });
    flush();
  }
  const box = make("input", {type: "checkbox", id: "whole"});
  box.addEventListener("change", () => draw(box.checked));
  draw(false);
  const legend = (color, text) => make("span", make("span", {class: "swatch", style: `background: ${color}`}), text);
  return [make("div", {class: "tools"}, legend("var(--bad)", "only before"), legend("var(--good)", "only after"),
      make("label", {for: "whole"}, box, " all nodes"),
      make("span", {class: "soft"}, "A click shows what a node reads and gives, and marks its neighbours.")),
    make("div", {class: "head"}, make("span", counted("before")), make("span", counted("after"))),
    body];
}

document.title = `${found.title}: ${found.level}`;
const spent = found.passes.reduce((sum, each) => sum + each.seconds, 0);
document.querySelector("main").append(
  make("h1", found.title), make("p", `optimized at level ${found.level}, for ${found.unit}`),
  make("div", {class: "totals"}, total(found.num_nodes.join(" → "), "nodes"),
    total(`${found.passes.filter(each => !each.left_out).length}`, "runs of passes that changed something"),
    total(seconds(spent), "with all comparisons")),
  ...found.notes.map(text => make("p", `note: ${text}`)),
  make("h2", "Passes"), passes(),
  ...(found.idle.length ? [make("p", `nothing to do for: ${found.idle.join(", ")}`)] : []),
  ...(found.outputs.length ? [make("h2", "Compared with the source"), outputs()] : []),
  make("h2", "The graph before and after"), ...graphs());
