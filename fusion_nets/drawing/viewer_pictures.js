// What the page shows: values, colours, planes, projection. One script with viewer_controls.js.
const study = JSON.parse(document.getElementById("case").textContent);
const { size, spacing, affine, images } = study;
const byId = (id) => document.getElementById(id);
const OVERLAYS = Object.keys(images).filter((key) => key.startsWith("overlay")), several = OVERLAYS.length > 1;
const SOURCES = ["anatomy", ...OVERLAYS], COLUMNS = ["anatomy", "overlay", "third"];
// axes run to the patient's left, back and feet: as a radiologist looks at them, no plane needs to be turned
const PLANES = {
  axial: { h: 0, v: 1, t: 2, sides: "RLAP" },
  coronal: { h: 0, v: 2, t: 1, sides: "RLSI" },
  sagittal: { h: 1, v: 2, t: 0, sides: "APSI" },
};
const stride = [1, size[0], size[0] * size[1]];
const planes = Object.keys(PLANES).filter((name) => size[PLANES[name].h] > 1 && size[PLANES[name].v] > 1);
const at = size.map((n) => n >> 1);
const state = { mode: "fused", blend: 0.5, flick: 0, fields: 25, cross: true, radiological: true, draw: false, angle: 0,
  overlay: "overlay" };  // of several the one that is looked at
const views = [];
let bar = 50, region = null, timer = 0, turning = 0, active = null;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
const options = (names) => names.map(([value, text]) => make("option", { value, textContent: text }));

// ---- values ----
async function unpack(id) {
  const text = byId(`data-${id}`).textContent, packed = atob(text), bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const raw = await new Response(stream).arrayBuffer();
  byId(`data-${id}`).remove();
  return new { uint16: Uint16Array, uint8: Uint8Array }[images[id].type](raw);
}
const indexOf = (place) => place[0] + stride[1] * place[1] + stride[2] * place[2];
const valueOf = (image, index) => image.channels === 3
  ? 0.299 * image.raw[3 * index] + 0.587 * image.raw[3 * index + 1] + 0.114 * image.raw[3 * index + 2]
  : image.raw[index] * image.slope + image.intercept;
const told = (image, value) => value.toLocaleString("en", { maximumFractionDigits: image.digits, minimumFractionDigits:
  image.digits, useGrouping: false }).replace("-", "\u2212");
function valueTold(image, index) {
  if (image.channels === 3) return `R ${image.raw[3 * index]} G ${image.raw[3 * index + 1]} B ${image.raw[3 * index + 2]}`;
  return `${told(image, valueOf(image, index))} ${image.units}`;
}
function placeTold(place) {
  // as the anatomy's file counts them, from 0
  const counted = study.counted.map(([axis, backwards]) => {
    const index = Math.min(study.whole[axis] - 1, place[axis] * study.every[axis] + (study.every[axis] >> 1));
    return backwards ? study.whole[axis] - 1 - index : index;
  });
  const voxel = `${study.voxels} ${counted.join(", ")}`;
  if (!affine) return voxel;
  const mm = affine.slice(0, 3).map((row) => row[0] * place[0] + row[1] * place[1] + row[2] * place[2] + row[3]);
  const words = mm.map((x, i) => `${(x < 0 ? "LPI" : "RAS")[i]} ${Math.abs(x).toFixed(1)}`);
  return `${words.join("  ")} mm; ${voxel}`;
}

// ---- colours ----
function lookUp(image) {
  if (image.channels === 3) return;
  const table = Uint8Array.from(atob(study.palettes[image.palette]), (c) => c.charCodeAt(0));
  image.table = table;
  image.gain = 255 * image.slope / (image.high - image.low);
  image.bias = 255 * (image.intercept - image.low) / (image.high - image.low);
}
function colour(image, index, out, place) {
  if (image.channels === 3) {
    for (let i = 0; i < 3; i++) out[place + i] = image.raw[3 * index + i];
    return;
  }
  const level = image.raw[index] * image.gain + image.bias, entry = 3 * (level < 0 ? 0 : level > 255 ? 255 : level + 0.5 | 0);
  out[place] = image.table[entry];
  out[place + 1] = image.table[entry + 1];
  out[place + 2] = image.table[entry + 2];
}
function pixels(view) {
  const { h, v, t } = PLANES[view.plane], width = size[h], height = size[v], out = view.picture.data, other = [0, 0, 0];
  const base = at[t] * stride[t], { anatomy, fused } = images, overlay = images[state.overlay];
  const mode = view.column === "third" ? state.mode : view.column;
  const one = { anatomy, overlay, fused, blend: anatomy, flicker: state.flick ? overlay : anatomy }[mode];
  const across = state.fields / spacing[h], down = state.fields / spacing[v];
  for (let j = 0, place = 0; j < height; j++) {
    for (let i = 0; i < width; i++, place += 4) {
      const index = base + i * stride[h] + j * stride[v];
      colour(one || ((Math.floor(i / across) + Math.floor(j / down)) % 2 ? overlay : anatomy), index, out, place);
      if (mode === "blend") {
        colour(overlay, index, other, 0);
        for (let k = 0; k < 3; k++) out[place + k] += state.blend * (other[k] - out[place + k]);
      }
      out[place + 3] = 255;
    }
  }
}

// ---- drawing ----
const mirrored = (view) => !state.radiological && PLANES[view.plane].h === 0;
const screen = (view, x, y) => {  // from voxel to canvas, in CSS pixels; the middle of a voxel is a whole number
  const { h, v } = PLANES[view.plane], u = (x + 0.5) / size[h] * view.width;
  return [mirrored(view) ? view.width - u : u, (y + 0.5) / size[v] * view.height];
};
function voxel(view, event) {
  const box = view.canvas.getBoundingClientRect(), { h, v, t } = PLANES[view.plane], place = [0, 0, 0];
  const u = (event.clientX - box.left) / box.width, w = (event.clientY - box.top) / box.height;
  const inside = (x, n) => Math.min(n - 1, Math.max(0, Math.floor(x * n)));
  place[h] = inside(mirrored(view) ? 1 - u : u, size[h]);
  place[v] = inside(w, size[v]);
  place[t] = at[t];
  return place;
}
function writing(context, text, x, y, align, baseline, ink = "#fff", around = "#000") {
  Object.assign(context, { textAlign: align, textBaseline: baseline, lineWidth: 3, strokeStyle: around, fillStyle: ink });
  context.strokeText(text, x, y);
  context.fillText(text, x, y);
}
function paint(view) {
  const { h, v, t, sides } = PLANES[view.plane], context = view.canvas.getContext("2d"), ratio = view.canvas.width / view.width;
  pixels(view);
  view.buffer.getContext("2d").putImageData(view.picture, 0, 0);
  context.setTransform(mirrored(view) ? -ratio : ratio, 0, 0, ratio, mirrored(view) ? view.canvas.width : 0, 0);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(view.buffer, 0, 0, view.width, view.height);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (region && region.plane === view.plane && region.slice === at[t]) {
    const [x, y] = screen(view, region.x, region.y);
    context.beginPath();
    context.ellipse(x, y, region.a / size[h] * view.width, region.b / size[v] * view.height, 0, 0, 2 * Math.PI);
    for (const [lineWidth, strokeStyle] of [[3.5, "#000"], [1.5, "#fff"]]) Object.assign(context, { lineWidth, strokeStyle }).stroke();
  }
  if (state.cross) {
    const [x, y] = screen(view, at[h], at[v]);
    context.beginPath();
    for (const [a, b, c, d] of [[0, y, x - 7, y], [x + 7, y, view.width, y], [x, 0, x, y - 7], [x, y + 7, x, view.height]]) {
      context.moveTo(a, b);
      context.lineTo(c, d);
    }
    for (const [lineWidth, strokeStyle] of [[3, "rgba(0,0,0,0.55)"], [1, "#8accf5"]]) Object.assign(context, { lineWidth, strokeStyle }).stroke();
  }
  context.font = "600 13px sans-serif";
  if (affine) {
    const [left, right] = mirrored(view) ? [sides[1], sides[0]] : [sides[0], sides[1]];
    writing(context, left, 4, view.height / 2, "left", "middle");
    writing(context, right, view.width - 4, view.height / 2, "right", "middle");
    writing(context, sides[2], view.width / 2, 3, "center", "top");
    writing(context, sides[3], view.width / 2, view.height - 3, "center", "bottom");
    const long = bar / spacing[h] / size[h] * view.width;
    context.fillStyle = "#000";
    context.fillRect(5, view.height - 10, long + 2, 4);
    context.fillStyle = "#fff";
    context.fillRect(6, view.height - 9, long, 2);
    context.font = "12px sans-serif";
    writing(context, `${bar} mm`, 6, view.height - 12, "left", "bottom");
  }
  context.font = "12px sans-serif";
  if (size[t] > 1) writing(context, `${at[t] + 1}/${size[t]}`, view.width - 4, view.height - 3, "right", "bottom");
  const both = ["anatomy", state.overlay];
  const shown = { anatomy: both[0], overlay: both[1] }[view.column] || (state.mode === "flicker" ? both[state.flick] : null);
  const image = images[shown];
  if (view.column === "third" && state.mode !== "fused") {
    const name = images[state.overlay].choice || "overlay", share = `${several ? ":" : ""} ${Math.round(100 * state.blend)} %`;
    const words = { blend: name + share, checkerboard: "top left: anatomy", flicker: shown === "anatomy" ? shown : name }[state.mode];
    writing(context, words, 4, 4, "left", "top");
  } else if (image && image.channels === 1) {
    writing(context, `${told(image, image.low)} to ${told(image, image.high)}`, 4, 4, "left", "top");
  }
}
let waiting = false;
function draw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    views.filter((view) => !view.figure.hidden).forEach(paint);
    document.documentElement.dataset.drawn = String(1 + Number(document.documentElement.dataset.drawn || 0));
  });
}
function layOut() {
  const chosen = byId("layout").value, shown = views.filter((view) => chosen === "all" || view.plane === chosen);
  views.forEach((view) => { view.figure.hidden = !shown.includes(view); });
  const width = shown[0].figure.clientWidth, extent = (axis) => size[axis] * spacing[axis];
  const widest = Math.max(...shown.map((view) => extent(PLANES[view.plane].h)));
  const tallest = Math.max(...shown.map((view) => extent(PLANES[view.plane].v)));
  const narrowest = Math.min(...shown.map((view) => extent(PLANES[view.plane].h)));
  bar = [200, 100, 50, 20, 10, 5].find((mm) => mm < 0.36 * narrowest) || 1;
  const scale = Math.min(width / widest, Math.max(200, 0.82 * window.innerHeight) / tallest);  // one for all planes
  for (const view of shown) {
    const { h, v } = PLANES[view.plane], ratio = window.devicePixelRatio || 1;
    view.width = Math.max(40, extent(h) * scale);
    view.height = Math.max(40, extent(v) * scale);
    view.canvas.style.width = `${view.width}px`;
    view.canvas.style.height = `${view.height}px`;
    view.canvas.width = Math.round(view.width * ratio);
    view.canvas.height = Math.round(view.height * ratio);
  }
  draw();
}

// ---- maximum intensity ----
function project() {
  const image = images[state.overlay], every = Math.max(1, Math.round(Math.cbrt(size[0] * size[1] * size[2] / 1e6)));
  const [nx, ny, nz] = size.map((n) => Math.ceil(n / every)), [sx, sy, sz] = spacing.map((mm) => mm * every);
  const pixel = Math.min(sx, sy, sz) * 1.001, reach = Math.hypot(nx * sx, ny * sy), width = Math.ceil(reach / pixel);
  const height = Math.ceil(nz * sz / pixel), turn = state.angle * Math.PI / 180, cos = Math.cos(turn), sin = Math.sin(turn);
  const highest = new Float32Array(width * nz).fill(-Infinity), cells = new Int32Array(width * width);
  let count = 0;
  const columns = new Int32Array(width * width);
  for (let u = 0; u < width; u++) {  // which voxels of a slice each line of sight meets
    for (let w = 0; w < width; w++) {
      const a = (u - (width - 1) / 2) * pixel, b = (w - (width - 1) / 2) * pixel;
      const x = Math.round((a * cos - b * sin) / sx + (nx - 1) / 2), y = Math.round((a * sin + b * cos) / sy + (ny - 1) / 2);
      if (x < 0 || y < 0 || x >= nx || y >= ny) continue;
      cells[count] = every * (x * stride[0] + y * stride[1]);
      columns[count++] = u;
    }
  }
  for (let z = 0; z < nz; z++) {
    const base = every * z * stride[2], line = z * width;
    for (let i = 0; i < count; i++) {
      const value = image.raw[base + cells[i]];
      if (value > highest[line + columns[i]]) highest[line + columns[i]] = value;
    }
  }
  const canvas = byId("mip"), picture = new ImageData(width, height);
  for (let j = 0, place = 0; j < height; j++) {
    const line = Math.min(nz - 1, Math.floor(j * pixel / sz)) * width;
    for (let u = 0; u < width; u++, place += 4) {
      const level = Math.max(0, highest[line + u] * image.gain + image.bias);
      picture.data.fill(255 - Math.min(255, level), place, place + 3);  // dark on white, as PET is read
      picture.data[place + 3] = 255;
    }
  }
  const whole = make("canvas", { width, height });
  whole.getContext("2d").putImageData(picture, 0, 0);
  const scale = Math.min(270 / width, 360 / height), ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale * ratio);
  canvas.height = Math.round(height * scale * ratio);
  canvas.style.width = `${width * scale}px`;
  canvas.style.height = `${height * scale}px`;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(whole, 0, 0, canvas.width, canvas.height);
  const sides = ["front", "patient's left", "back", "patient's right"], seen = Math.round(state.angle / 90) % 4;
  byId("mip-side").textContent = `${state.angle}\u00b0 ${sides[seen]}`;
  canvas.setAttribute("aria-label", `Maximum intensity projection of ${byId("mip-of").textContent}, seen from ${state.angle} degrees, ${sides[seen]}`);
  context.scale(ratio, ratio);
  context.font = "600 13px sans-serif";
  const [left, right] = ["RL", "AP", "LR", "PA"][seen];
  writing(context, left, 4, height * scale / 2, "left", "middle", "#000", "#fff");
  writing(context, right, width * scale - 4, height * scale / 2, "right", "middle", "#000", "#fff");
}
function setAngle(degrees) {
  state.angle = byId("angle").value = (degrees + 360) % 360;
  state.angle = Number(state.angle);
  project();
}
