// Copies what the page loads into ort/, so that this folder is complete without node_modules.
import { copyFileSync, mkdirSync } from "node:fs";

const FILES = [
  "ort.wasm.bundle.min.mjs", // processor only
  "ort-wasm-simd-threaded.wasm",
  "ort.webgpu.bundle.min.mjs", // with WebGPU
  "ort-wasm-simd-threaded.asyncify.wasm",
];
mkdirSync("ort", { recursive: true });
for (const name of FILES) copyFileSync(`node_modules/onnxruntime-web/dist/${name}`, `ort/${name}`);
copyFileSync("../images/synthetic_0.jpg", "example.jpg");
