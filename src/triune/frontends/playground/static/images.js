// Names of pictures, over KServe's infer with Triton's classification extension and a binary tensor.

import { request } from "./api.js";
import { byId, duration, errorBox, fillChoice, make, takeFiles } from "./dom.js";

const NUM_LABELS = 5;
// The shorter side is scaled to this much of the square before the middle is cut, as it was for most models' training.
const MARGIN = 256 / 224;

/** What becomes of a pixel's value (0 to 255) of each colour: it times a factor, plus an offset. */
const SCALES = {
  imagenet: { mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225] },
  unit: { mean: [0, 0, 0], deviation: [1, 1, 1] },
  signed: { mean: [0.5, 0.5, 0.5], deviation: [0.5, 0.5, 0.5] },
  bytes: { mean: [0, 0, 0], deviation: [1 / 255, 1 / 255, 1 / 255] },
};

export class Images {
  #models = new Map();
  #picture = null;
  #asked = 0;
  #result = byId("images-result");

  constructor() {
    takeFiles(byId("images-file"), byId("images-drop"), (file) => this.#choose(file));
    for (const id of ["images-model", "images-scale"]) byId(id).addEventListener("change", () => this.#classify());
    byId("images-form").addEventListener("submit", (event) => event.preventDefault());
  }

  update(models) {
    this.#models = new Map(models.filter((each) => each.image).map((each) => [each.name, each.image]));
    const hasAny = fillChoice(byId("images-model"), [...this.#models.keys()]);
    byId("images-file").disabled = !hasAny;
    if (!hasAny && !this.#result.hasChildNodes())
      this.#result.append(make("p", { className: "empty" }, "No model that is ready classifies pictures."));
    if (hasAny) this.#result.querySelector(".empty")?.remove();
  }

  async #choose(file) {
    try {
      this.#picture = await createImageBitmap(file);
    } catch {
      this.#picture = null;
      byId("images-canvas").hidden = true;
      this.#result.replaceChildren(errorBox(new Error(`${file.name} is no picture that this browser can read`)));
      return;
    }
    await this.#classify();
  }

  async #classify() {
    const name = byId("images-model").value;
    const form = this.#models.get(name);
    if (!this.#picture || !form) return;
    const number = ++this.#asked;
    const pixels = this.#draw(form);
    this.#result.setAttribute("aria-busy", "true");
    let shown;
    try {
      const started = performance.now();
      const labels = await classify(name, form, tensorOf(pixels, form, SCALES[byId("images-scale").value]));
      const seconds = (performance.now() - started) / 1e3;
      shown = [labelList(labels), make("p", { className: "meta" }, `answered in ${duration(seconds)}`)];
    } catch (error) {
      shown = [errorBox(error)];
    }
    // Another picture or model may have been chosen meanwhile.
    if (number !== this.#asked) return;
    this.#result.replaceChildren(...shown);
    this.#result.setAttribute("aria-busy", "false");
  }

  /** Draw the picture's middle as the model sees it. Returns its pixels: red, green, blue and alpha of each. */
  #draw({ width, height }) {
    const canvas = byId("images-canvas");
    Object.assign(canvas, { width, height, hidden: false });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    const scale = MARGIN * Math.max(width / this.#picture.width, height / this.#picture.height);
    const size = [this.#picture.width * scale, this.#picture.height * scale];
    context.drawImage(this.#picture, (width - size[0]) / 2, (height - size[1]) / 2, ...size);
    return context.getImageData(0, 0, width, height).data;
  }
}

function tensorOf(pixels, { layout, width, height }, { mean, deviation }) {
  const num = width * height;
  const tensor = new Float32Array(3 * num);
  for (let pixel = 0; pixel < num; pixel += 1) {
    for (let colour = 0; colour < 3; colour += 1) {
      const place = layout === "NCHW" ? colour * num + pixel : 3 * pixel + colour;
      tensor[place] = (pixels[4 * pixel + colour] / 255 - mean[colour]) / deviation[colour];
    }
  }
  return tensor;
}

async function classify(name, form, tensor) {
  const parameters = { binary_data_size: tensor.byteLength };
  const head = new TextEncoder().encode(
    JSON.stringify({
      inputs: [{ name: form.input, datatype: "FP32", shape: form.shape, parameters }],
      outputs: [{ name: form.output, parameters: { classification: NUM_LABELS, binary_data: false } }],
    }),
  );
  const response = await request(`/v2/models/${encodeURIComponent(name)}/infer`, {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream", "Inference-Header-Content-Length": String(head.length) },
    body: new Blob([head, tensor]),
  });
  const answer = await response.json();
  // Each is "value:index:label".
  return answer.outputs[0].data.map((each) => {
    const [value, index, ...label] = each.split(":");
    return { value: Number(value), label: label.join(":") || `class ${index}` };
  });
}

function labelList(labels) {
  // Scores that are no probabilities are shown as they are, and their bars beside the greatest.
  const areProbabilities = labels.every(({ value }) => value >= 0 && value <= 1);
  const top = areProbabilities ? 1 : Math.max(...labels.map(({ value }) => value), 1e-9);
  const items = labels.map(({ value, label }) => {
    const bar = make("span", { className: "fill" });
    bar.style.setProperty("--share", `${Math.max(0, 100 * (value / top))}%`);
    const number = areProbabilities ? `${(100 * value).toFixed(1)} %` : value.toFixed(2);
    return make("li", {}, make("span", {}, label), make("b", {}, number), make("span", { className: "track" }, bar));
  });
  return make("ol", { className: "labels" }, ...items);
}
