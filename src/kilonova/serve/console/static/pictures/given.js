// Pictures that are given, brought into a form that the server takes.

const MAX_SIDE = 4096;
const MAX_PIXELS = 2048 * 2048;
const JPEG_QUALITY = 0.95;

/**
 * A file as { blob, width, height, extension }. A PNG that fits is sent as it is; any other is drawn on white, smaller
 * if need be, and upright. Raises Error for what the browser cannot show.
 */
export async function readPicture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name || "This"} is no picture that the browser can read.`);
  }
  const { width, height } = bitmap;
  const scale = Math.min(1, MAX_SIDE / Math.max(width, height), Math.sqrt(MAX_PIXELS / (width * height)));
  const canvas = newCanvas(Math.floor(width * scale), Math.floor(height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  if (file.type === "image/png" && scale === 1 && isOpaque(context)) return { blob: file, width, height, extension: "png" };
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  return write(canvas, file.type === "image/jpeg");
}

/** A picture with a white margin of so many pixels around it. */
export async function withMargin({ blob, extension }, marginX, marginY) {
  const bitmap = await createImageBitmap(blob);
  const canvas = newCanvas(bitmap.width + 2 * marginX, bitmap.height + 2 * marginY);
  const context = canvas.getContext("2d");
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, marginX, marginY);
  bitmap.close();
  return write(canvas, extension === "jpg");
}

function newCanvas(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, width);
  canvas.height = Math.max(1, height);
  return canvas;
}

function isOpaque(context) {
  const { data } = context.getImageData(0, 0, context.canvas.width, context.canvas.height);
  for (let index = 3; index < data.length; index += 4) if (data[index] < 255) return false;
  return true;
}

// Photographs stay JPEG, or they would be too long for a request.
async function write(canvas, isPhotograph) {
  const type = isPhotograph ? "image/jpeg" : "image/png";
  const blob = await new Promise((resolve) => { canvas.toBlob(resolve, type, JPEG_QUALITY); });
  return { blob, width: canvas.width, height: canvas.height, extension: isPhotograph ? "jpg" : "png" };
}
