// Which pixels of a picture are to be made anew. They are or they are not: nothing is blended, whatever the screen does.

export class Mask {
  /** `data` has a byte for each pixel, row by row: 1 where it is marked. */
  constructor(width, height, data = new Uint8Array(width * height)) {
    this.width = width;
    this.height = height;
    this.data = data;
  }

  /** Marks, or clears with `value` 0, all within `radius` of a line; the rectangle { x, y, width, height } that changed. */
  line(fromX, fromY, toX, toY, radius, value) {
    const left = Math.max(0, Math.floor(Math.min(fromX, toX) - radius));
    const top = Math.max(0, Math.floor(Math.min(fromY, toY) - radius));
    const right = Math.min(this.width, Math.ceil(Math.max(fromX, toX) + radius) + 1);
    const bottom = Math.min(this.height, Math.ceil(Math.max(fromY, toY) + radius) + 1);
    const [dx, dy] = [toX - fromX, toY - fromY];
    const length = dx * dx + dy * dy;
    for (let y = top; y < bottom; y += 1) {
      for (let x = left; x < right; x += 1) {
        // From the pixel's middle to the nearest point of the line.
        const [px, py] = [x + 0.5 - fromX, y + 0.5 - fromY];
        const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        if ((px - along * dx) ** 2 + (py - along * dy) ** 2 <= radius * radius) this.data[y * this.width + x] = value;
      }
    }
    return { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
  }

  fill(value) {
    this.data.fill(value);
  }

  invert() {
    this.data.forEach((value, index) => { this.data[index] = 1 - value; });
  }

  /** The share of pixels that are marked. */
  share() {
    return this.data.reduce((sum, value) => sum + value, 0) / this.data.length;
  }

  /** The mask of the picture with a margin of so many pixels around it, which is marked. */
  grown(marginX, marginY) {
    const larger = new Mask(this.width + 2 * marginX, this.height + 2 * marginY);
    larger.fill(1);
    for (let y = 0; y < this.height; y += 1) {
      const row = this.data.subarray(y * this.width, (y + 1) * this.width);
      larger.data.set(row, (y + marginY) * larger.width + marginX);
    }
    return larger;
  }
}
