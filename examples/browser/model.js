// The model: ONNX Runtime Web with the file that `condseg export --preprocessing` writes.

const CONFIG_KEY = "condseg_config";
const METADATA = 14; // field number of ModelProto.metadata_props
// ONNX Runtime's WebGPU has no Resize with antialiasing: these nodes, the first and the last ones, stay on the processor.
const ON_PROCESSOR = ["resize_image.batch", "resize_mask", "resize_branch_uncertainty"];

/**
 * Opens the model with WebGPU where there is one, otherwise with WebAssembly.
 *
 * @param {string} url Address of the .onnx file.
 * @returns {Promise<{predict: Function, threshold: number, runtime: string}>} `predict` takes an ImageData and returns
 *   the probability of each pixel, row by row; `threshold` is the checkpoint's own.
 */
export async function openModel(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} is missing; make it with the command in README.md`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  const config = JSON.parse(readMetadata(bytes)[CONFIG_KEY] ?? "null");
  if (config === null) throw new Error(`${url} is not an export of condseg_sdk; make it with the command in README.md`);

  let refused = "";
  if (await hasWebGpu()) {
    try {
      return await open(bytes, config, "webgpu", "");
    } catch (error) {
      refused = `WebGPU was refused (${error.message}); `;
    }
  }
  return await open(bytes, config, "wasm", refused);
}

async function hasWebGpu() {
  if (new URLSearchParams(location.search).get("device") === "wasm" || !navigator.gpu) return false;
  const adapter = await navigator.gpu.requestAdapter();
  return adapter !== null && !adapter.info?.isFallbackAdapter; // one in software is slower than WebAssembly
}

async function open(bytes, config, provider, remark) {
  const ort = await import(`./ort/ort.${provider}.bundle.min.mjs`);
  const build = provider === "webgpu" ? "asyncify." : "";
  ort.env.wasm.wasmPaths = { wasm: new URL(`ort/ort-wasm-simd-threaded.${build}wasm`, document.baseURI).href };
  ort.env.wasm.numThreads = crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(bytes, {
    executionProviders: [provider === "webgpu" ? { name: provider, forceCpuNodeNames: ON_PROCESSOR } : provider],
  });
  if (!session.inputNames.includes("image")) {
    throw new Error("the model takes no images; export it with --preprocessing");
  }
  const predict = (image) => run(ort, session, image);
  await predict(new ImageData(32, 32)); // the first run prepares memory and shaders, and shows whether it works
  return { predict, threshold: config.threshold, runtime: remark + describe(provider, ort.env.wasm.numThreads) };
}

function describe(provider, threads) {
  if (provider === "webgpu") return "Runs with WebGPU.";
  const count = threads === 1 ? "1 thread" : `${threads} threads`;
  return `Runs with WebAssembly, ${count}${crossOriginIsolated ? "" : ": the server does not send the headers for more"}.`;
}

async function run(ort, session, image) {
  const { width, height } = image;
  const inputs = { image: new ort.Tensor("uint8", withoutAlpha(image.data), [height, width, 3]) };
  if (session.inputNames.includes("field_of_view")) {
    const whole = BigInt64Array.from([0n, 0n, BigInt(width), BigInt(height)]);
    inputs.field_of_view = new ort.Tensor("int64", whole, [4]);
  }
  const { probability } = await session.run(inputs);
  return probability.data;
}

function withoutAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return rgb;
}

/** Reads the metadata of an ONNX file, which ONNX Runtime Web does not give out: the pairs of ModelProto's field 14. */
function readMetadata(bytes) {
  const metadata = {};
  for (const { field, content } of fieldsOf(bytes)) {
    if (field !== METADATA) continue;
    const pair = {};
    for (const part of fieldsOf(content)) pair[part.field] = new TextDecoder().decode(part.content);
    metadata[pair[1]] = pair[2];
  }
  return metadata;
}

/** Yields the fields of a protobuf message that have a length; numbers are skipped. */
function* fieldsOf(bytes) {
  let at = 0;
  const number = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * factor;
      if (!(byte & 128)) return value;
    }
  };
  while (at < bytes.length) {
    const tag = number();
    const type = tag % 8;
    if (type === 0) number();
    else if (type === 1) at += 8;
    else if (type === 5) at += 4;
    else if (type === 2) {
      const length = number();
      yield { field: Math.floor(tag / 8), content: bytes.subarray(at, at + length) };
      at += length;
    } else throw new Error("the model is damaged; export it again");
  }
}
