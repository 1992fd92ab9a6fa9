// The page: an image in, its overlay out. `model.js` runs the model, `draw.js` draws.
import { drawMask, drawOverlay } from "./draw.js";
import { openModel } from "./model.js";

const MAX_PIXELS = 25_000_000; // more would fill the memory of a phone
const element = (id) => document.getElementById(id);

let model = null;
let current = null; // { name, image, probability }

function say(text, isError = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
}

/** Decodes an image as `condseg_sdk` does: upright, with its stored colors, transparent pixels black. */
async function decode(blob, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${name} is not an image that this browser can read; save it as PNG or JPEG`);
  }
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) {
    bitmap.close();
    throw new Error(`${name} has ${width} x ${height} pixels, more than ${MAX_PIXELS / 1e6} million; make it smaller`);
  }
  const context = new OffscreenCanvas(width, height).getContext("2d", { alpha: false, willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

async function segment(blob, name) {
  if (model === null) return;
  clear();
  say(`Segmenting ${name} ...`);
  try {
    const image = await decode(blob, name);
    const start = performance.now();
    const probability = await model.predict(image);
    const milliseconds = Math.round(performance.now() - start);
    current = { name, image, probability };
    show();
    say(`${name}: ${image.width} x ${image.height} pixels, segmented in ${milliseconds} ms`);
  } catch (error) {
    say(error.message, true);
  }
}

function clear() {
  current = null;
  element("overlay").hidden = true;
  element("result").textContent = "";
  for (const id of ["download", "download-mask"]) element(id).disabled = true;
}

function mask() {
  const threshold = element("threshold").valueAsNumber;
  return Uint8Array.from(current.probability, (value) => (value >= threshold ? 1 : 0));
}

function show() {
  element("value").textContent = element("threshold").valueAsNumber.toFixed(2);
  if (current === null) return;
  const pixels = mask();
  drawOverlay(element("overlay"), current.image, pixels);
  element("overlay").hidden = false;
  const area = pixels.reduce((sum, value) => sum + value, 0);
  element("result").textContent =
    area === 0
      ? "No pixel reaches the threshold."
      : `${area.toLocaleString("en")} pixels, ${((100 * area) / pixels.length).toFixed(1)} % of the image`;
  for (const id of ["download", "download-mask"]) element(id).disabled = false;
}

function download(canvas, suffix) {
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = current.name.replace(/\.[^.]*$/, "") + suffix;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}

element("file").addEventListener("change", ({ target }) => {
  if (target.files.length) segment(target.files[0], target.files[0].name);
  target.value = ""; // the same file can be chosen again
});
element("example").addEventListener("click", async () => {
  const response = await fetch("example.jpg");
  if (response.ok) segment(await response.blob(), "example.jpg");
  else say("example.jpg is missing; run npm ci in this folder", true);
});
element("threshold").addEventListener("input", show);
element("download").addEventListener("click", () => download(element("overlay"), "_overlay.png"));
element("download-mask").addEventListener("click", () => {
  const canvas = document.createElement("canvas");
  drawMask(canvas, current.image, mask());
  download(canvas, "_mask.png");
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    const file = name === "drop" ? event.dataTransfer.files[0] : undefined;
    if (file) segment(file, file.name);
  });
}

say("Loading the model ...");
try {
  model = await openModel("model.onnx");
  element("threshold").value = model.threshold;
  element("threshold").disabled = false;
  element("runtime").textContent = model.runtime;
  show();
  say("Ready: choose an image, or take the example.");
} catch (error) {
  say(error.message, true);
}
