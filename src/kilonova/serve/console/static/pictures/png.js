// PNG files, byte by byte: a canvas may blend or blur what it writes, and cannot read what a file says of itself.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const GREY_OF_8_BITS = [8, 0, 0, 0, 0];

/** The file of a mask: marked pixels have the grey level `marked`, 0 or 255, all others the opposite. */
export async function maskFile({ width, height, data }, marked) {
  const rows = new Uint8Array((width + 1) * height); // Each row begins with its filter, 0 for none.
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      rows[y * (width + 1) + 1 + x] = data[y * width + x] ? marked : 255 - marked;
    }
  }
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header.set(GREY_OF_8_BITS, 8);
  const stream = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const pixels = new Uint8Array(await new Response(stream).arrayBuffer());
  const parts = [new Uint8Array(SIGNATURE), chunk("IHDR", header), chunk("IDAT", pixels), chunk("IEND", new Uint8Array())];
  return new Blob(parts, { type: "image/png" });
}

/** What a picture of ours says about how it was made: { model, seed, native_size, num_inference_steps }, or null. */
export async function readMetadata(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const view = new DataView(bytes.buffer);
  const latin = (from, to) => String.fromCharCode(...bytes.subarray(from, to));
  for (let at = SIGNATURE.length; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
    const from = at + 8;
    const to = from + view.getUint32(at);
    if (latin(at + 4, from) !== "tEXt" || latin(from, from + 9) !== "kilonova\0") continue;
    try {
      return JSON.parse(latin(from + 9, to));
    } catch {
      return null;
    }
  }
  return null;
}

function chunk(type, data) {
  const bytes = new Uint8Array(data.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  for (let index = 0; index < 4; index += 1) bytes[4 + index] = type.charCodeAt(index);
  bytes.set(data, 8);
  view.setUint32(bytes.length - 4, crc(bytes.subarray(4, bytes.length - 4)));
  return bytes;
}

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  }
  return (value ^ 0xffffffff) >>> 0;
}
