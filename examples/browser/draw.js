// Draws a mask, and an image with the mask's tint and contour.

const COLOR = [64, 224, 208]; // turquoise contrasts with red tissue
const TINT = 0.15;

/** Draws the mask alone: white where it is, black elsewhere. */
export function drawMask(canvas, { width, height }, mask) {
  const pixels = new ImageData(width, height);
  for (let i = 0; i < mask.length; i++) pixels.data.set([255 * mask[i], 255 * mask[i], 255 * mask[i], 255], 4 * i);
  put(canvas, pixels);
}

/** Draws the image with the mask over it. */
export function drawOverlay(canvas, image, mask) {
  const { width, height } = image;
  const pixels = new ImageData(new Uint8ClampedArray(image.data), width, height);
  const blend = (i, strength) => {
    for (let channel = 0; channel < 3; channel++) {
      const at = 4 * i + channel;
      pixels.data[at] += strength * (COLOR[channel] - pixels.data[at]);
    }
  };
  const half = Math.max(1, Math.round(Math.min(width, height) / 400)); // half the contour's width
  const isContour = new Uint8Array(mask.length);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!mask[i]) continue;
      blend(i, TINT);
      const isEdge = !(x && mask[i - 1] && x < width - 1 && mask[i + 1] && y && mask[i - width] && mask[i + width]);
      if (!isEdge) continue;
      for (let v = Math.max(0, y - half); v <= Math.min(height - 1, y + half); v++) {
        isContour.fill(1, v * width + Math.max(0, x - half), v * width + Math.min(width - 1, x + half) + 1);
      }
    }
  }
  for (let i = 0; i < isContour.length; i++) if (isContour[i]) blend(i, 1);
  put(canvas, pixels);
}

function put(canvas, pixels) {
  canvas.width = pixels.width;
  canvas.height = pixels.height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
