
// What the page's controls do, and what they tell. One script with viewer_pictures.js.
const MEASURES = ["Mean", "SD", "Minimum", "Maximum"];
// ---- what is told ----
function tell(place, words) {
  const index = indexOf(place);
  byId("at-head").textContent = words;
  SOURCES.forEach((key) => { byId(`value-${key}`).textContent = valueTold(images[key], index); });
  byId("place").textContent = placeTold(place);
}
function sliceTold(plane, whole) {
  const { t } = PLANES[plane];
  if (size[t] < 2) return affine ? plane : "picture";
  return `${plane}, slice ${at[t] + 1}${whole ? ` of ${size[t]}` : ""}`;
}
function moved(spoken) {
  tell(at, "At the crosshair");
  if (spoken) {
    byId("spoken").hidden = false;
    const values = SOURCES.map((key) => (several ? `${images[key].called} ` : "") + byId(`value-${key}`).textContent);
    byId("spoken").textContent = [...values, byId("place").textContent].join(", ");
  }
  for (const slider of document.querySelectorAll("#sliders input")) slider.value = at[slider.dataset.axis];
  views.forEach((view) => view.canvas.setAttribute("aria-label",
    `${byId(`title-${view.column}`).textContent}, ${sliceTold(view.plane, true)}`));
  draw();
}
function go(axis, step, spoken) {
  at[axis] = Math.min(size[axis] - 1, Math.max(0, at[axis] + step));
  moved(spoken);
}
function measure(plane, x, y, a, b) {
  const { h, v, t } = PLANES[plane], place = [0, 0, 0], sums = SOURCES.map(() => []);
  region = { plane, slice: at[t], x, y, a, b };
  place[t] = at[t];
  for (let j = Math.max(0, Math.ceil(y - b)); j <= Math.min(size[v] - 1, y + b); j++) {
    for (let i = Math.max(0, Math.ceil(x - a)); i <= Math.min(size[h] - 1, x + a); i++) {
      if (((i - x) / a) ** 2 + ((j - y) / b) ** 2 > 1) continue;
      place[h] = i;
      place[v] = j;
      SOURCES.forEach((key, k) => sums[k].push(valueOf(images[key], indexOf(place))));
    }
  }
  const count = sums[0].length, area = count * spacing[h] * spacing[v], where = sliceTold(plane);
  byId("region-where").textContent = count ? `${where}: ${count} ${study.voxels === "pixel" ? "pixels" : "voxels"}` +
    `${affine ? `, ${area.toFixed(0)} mm\u00b2` : ""}` : `${where}: too small`;
  const rows = sums.map((values, k) => {
    const mean = values.reduce((a, b) => a + b, 0) / count;
    const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (count - 1));
    const image = { ...images[SOURCES[k]], digits: Math.max(images[SOURCES[k]].digits, 1) };
    const extreme = (pick) => told(images[SOURCES[k]], values.reduce((a, b) => pick(a, b)));
    return count ? [told(image, mean), count > 1 ? told(image, deviation) : "\u2013", extreme(Math.min), extreme(Math.max)] : [];
  });
  const body = byId("region").tBodies[0], cells = (values) => values.map((textContent) => make("td", { textContent }));
  if (several) rows.forEach((row, k) => byId(`region-${SOURCES[k]}`).replaceChildren(...cells(row)));
  else body.replaceChildren(...MEASURES.map((name, i) => make("tr", {}, make("th", { scope: "row", textContent: name }),
    ...cells(rows.map((row) => row[i])))));
  byId("region").hidden = !count;
  draw();
}
function circle(plane) {
  const { h, v } = PLANES[plane], radius = Number(byId("radius").value) || 10;
  measure(plane, at[h], at[v], radius / spacing[h], radius / spacing[v]);
}
function clear() {
  region = null;
  byId("region").hidden = true;
  byId("region-where").textContent = "None drawn: drag with Shift held on a picture, or use the buttons.";
  draw();
}
function titles() {
  const names = { fused: "Fused", blend: "Blend", checkerboard: "Checkerboard", flicker: "Flicker" };
  const words = state.mode === "fused" ? study.mixed && `: ${study.mixed}` : several ? ` with ${images[state.overlay].called}` : "";
  byId("title-anatomy").textContent = images.anatomy.title;
  byId("title-overlay").textContent = images[state.overlay].title;
  byId("title-third").replaceChildren(names[state.mode], make("span", { textContent: words }));
  byId("view").textContent = !affine ? "" : state.radiological
    ? "Radiological view: the patient's right is on the left of the picture."
    : "Neurological view: the patient's left is on the left of the picture.";
}
function setMode(mode) {
  state.mode = byId("mode").value = mode;
  clearInterval(timer);
  // once a second: far below the three flashes that WCAG 2.3.1 allows
  if (mode === "flicker") timer = setInterval(() => { state.flick = 1 - state.flick; draw(); }, 1000);
  titles();
  moved();
}
function setBlend(percent) {
  byId("blend").value = Math.min(100, Math.max(0, percent));
  state.blend = byId("blend").value / 100;
  if (state.mode !== "blend") setMode("blend");
  draw();
}
function setOverlay(key, spoken) {
  state.overlay = key;
  OVERLAYS.forEach((one) => { byId(`windows-${one}`).hidden = one !== key; });
  for (const radio of document.getElementsByName("overlay")) radio.checked = radio.value === key;
  titles();
  moved(spoken);
  const projected = study.projection.includes(key);
  byId("projection").hidden = !projected;
  if (several) byId("mip-of").textContent = images[key].called;
  if (projected) project();
  else setTurning(false);
}
function setTurning(on) {
  byId("turn").setAttribute("aria-pressed", on);
  clearInterval(turning);
  turning = on ? setInterval(() => setAngle(state.angle + 5), 120) : 0;
}
function setCross(on) {
  state.cross = byId("cross").checked = on;
  draw();
}
function setSides(radiological) {
  state.radiological = byId("radiological").checked = radiological;
  titles();
  draw();
}

// ---- the page's parts ----
function buildViews() {
  for (const plane of planes) {
    for (const column of COLUMNS) {
      const { h, v } = PLANES[plane], canvas = make("canvas", { tabIndex: 0 });
      canvas.setAttribute("role", "application");
      const figure = make("div", { className: "field" }, canvas);
      const view = { plane, column, canvas, figure, buffer: make("canvas", { width: size[h], height: size[v] }) };
      canvas.dataset.plane = plane;
      canvas.dataset.column = column;
      view.picture = new ImageData(size[h], size[v]);
      byId("pictures").append(figure);
      views.push(view);
      listen(view);
    }
  }
}
function listen(view) {
  const { h, v, t } = PLANES[view.plane], { canvas } = view;
  let start = null;
  const cross = (event) => {
    voxel(view, event).forEach((x, axis) => { at[axis] = x; });
    moved();
  };
  canvas.addEventListener("pointerdown", (event) => {
    active = view;
    canvas.setPointerCapture(event.pointerId);
    start = { place: voxel(view, event), region: event.shiftKey || state.draw };
    if (!start.region) cross(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    const place = voxel(view, event);
    if (!start) return tell(place, "Under the pointer");
    if (!start.region) return cross(event);
    const middle = (axis) => (place[axis] + start.place[axis]) / 2, half = (axis) => Math.abs(place[axis] - start.place[axis]) / 2 + 0.01;
    measure(view.plane, middle(h), middle(v), half(h), half(v));
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { start = null; });
  canvas.addEventListener("pointerleave", () => tell(at, "At the crosshair"));
  canvas.addEventListener("focus", () => { active = view; });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    go(t, Math.sign(event.deltaY));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const step = event.shiftKey ? 10 : 1, side = mirrored(view) ? -step : step;
    const action = {
      ArrowLeft: () => go(h, -side, true), ArrowRight: () => go(h, side, true), ArrowUp: () => go(v, -step, true),
      ArrowDown: () => go(v, step, true), PageUp: () => go(t, -step, true), PageDown: () => go(t, step, true),
      Enter: () => circle(view.plane), Escape: clear, f: () => setMode("fused"), b: () => setMode("blend"),
      c: () => setMode("checkerboard"), k: () => setMode("flicker"), "[": () => setBlend(100 * state.blend - 10),
      "]": () => setBlend(100 * state.blend + 10), x: () => setCross(!state.cross), s: () => setSides(!state.radiological),
      ...Object.fromEntries(several ? OVERLAYS.map((key, i) => [i + 1, () => setOverlay(key, true)]) : []),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
function buildWindows(key) {
  const image = images[key];
  if (image.channels === 3) return [make("p", { className: "soft", textContent: `${image.title}: in its own colours` })];
  const choice = make("select", { id: `window-${key}` }, ...options([...image.windows.map(({ name }, i) => [i, name]), ["own", "own"]]));
  const ends = ["low", "high"].map((end) => make("input", { type: "number", step: "any", id: `${end}-${key}` }));
  const palette = make("select", { id: `palette-${key}` }, ...options(Object.keys(study.palettes).map((name) => [name, name.replace(/_/g, " ")])));
  const round = (x) => Number(x.toPrecision(5));
  const show = (low, high) => {
    if (!(high > low)) return;
    Object.assign(image, { low, high });
    lookUp(image);
    if (key === state.overlay && !byId("projection").hidden) project();
    draw();
  };
  choice.addEventListener("change", () => {
    const window = image.windows[choice.value];
    if (!window) return;
    [ends[0].value, ends[1].value] = [round(window.low), round(window.high)];
    show(window.low, window.high);
  });
  ends.forEach((end) => end.addEventListener("input", () => {
    choice.value = "own";
    if (ends.every(({ value }) => value !== "")) show(Number(ends[0].value), Number(ends[1].value));
  }));
  palette.value = image.palette;
  palette.addEventListener("change", () => {
    image.palette = palette.value;
    lookUp(image);
    draw();
  });
  [ends[0].value, ends[1].value] = [round(image.low), round(image.high)];
  const named = (words, ...inputs) => {
    inputs.forEach((input, i) => input.setAttribute("aria-label", `${image.title}: ${inputs.length > 1 ? ["black", "white"][i] : words}`));
    return make("label", {}, make("span", { textContent: words }), ...inputs);
  };
  return [make("p", {}, make("b", { textContent: image.title })), named("window", choice), named(image.units, ...ends), named("palette", palette)];
}
function buildOverlays() {
  for (const key of OVERLAYS.slice(1)) {
    byId("place-row").before(make("tr", {}, make("th", { scope: "row", id: `name-${key}` }), make("td", { id: `value-${key}` })));
  }
  // four sources side by side are too wide: each has lines of its own
  byId("region").replaceChildren(make("thead", {}, make("tr", {}, ...MEASURES.map((textContent) => make("th", { scope: "col", textContent })))),
    ...SOURCES.map((key) => make("tbody", {}, make("tr", {}, make("th", { id: `measured-${key}`, scope: "rowgroup", colSpan: 4 })),
      make("tr", { id: `region-${key}` }))));
  byId("overlays").append(...OVERLAYS.map((key) => {
    const radio = make("input", { type: "radio", name: "overlay", value: key, checked: key === state.overlay });
    radio.addEventListener("change", () => setOverlay(key));
    return make("label", {}, radio, make("span", { textContent: images[key].choice }));
  }));
  byId("overlay-keys").append(...OVERLAYS.flatMap((_, i) => [make("kbd", { textContent: i + 1 }), " "]), "the overlay that is looked at");
  byId("overlays").hidden = byId("overlay-keys").hidden = false;
  byId("mode").options[1].textContent = "blend with the overlay";
  byId("place-row").parentElement.className = byId("region").className = "several";
}
function build() {
  document.title = study.title;
  if (several) buildOverlays();
  for (const key of SOURCES) {
    byId(`name-${key}`).textContent = images[key].title;
    byId(`measured-${key}`).textContent = `${images[key].title}, ${images[key].channels === 3 ? "luminance" : images[key].units}`;
    byId("windows").append(make("div", { id: `windows-${key}` }, ...buildWindows(key)));
  }
  byId("layout").append(...options([...(planes.length > 1 ? [["all", "all three"]] : []), ...planes.map((name) => [name, name])]));
  for (const plane of planes) {
    const { t } = PLANES[plane], slider = make("input", { type: "range", min: 0, max: size[t] - 1, value: at[t] });
    if (size[t] < 2) continue;
    slider.dataset.axis = t;
    slider.setAttribute("aria-label", `Slice, ${plane}`);
    slider.addEventListener("input", () => go(t, slider.value - at[t]));
    byId("sliders").append(make("label", {}, make("span", { textContent: plane }), slider));
  }
  byId("layout-row").hidden = planes.length < 2;
  byId("sides-row").hidden = !affine;
  if (!affine) ["fields-unit", "radius-unit"].forEach((id) => { byId(id).textContent = "pixels"; });
  byId("stored").textContent = study.stored;
  byId("record").textContent = JSON.stringify(study.record, null, 2);
  byId("chosen").tBodies[0].append(...study.chosen.map(([name, value]) => make("tr", {},
    make("th", { scope: "row", textContent: name }), make("td", { textContent: value }))));
  byId("warnings").hidden = !study.warnings.length;
  byId("warnings").lastElementChild.append(...study.warnings.map((words) => make("li", { textContent: words })));
  byId("mode").addEventListener("change", () => setMode(byId("mode").value));
  byId("blend").addEventListener("input", () => setBlend(byId("blend").value));
  byId("fields").addEventListener("input", () => { state.fields = Math.max(2, Number(byId("fields").value) || 25); draw(); });
  byId("layout").addEventListener("change", layOut);
  byId("cross").addEventListener("change", () => setCross(byId("cross").checked));
  byId("radiological").addEventListener("change", () => setSides(byId("radiological").checked));
  byId("draw").addEventListener("click", () => { state.draw = !state.draw; byId("draw").setAttribute("aria-pressed", state.draw); });
  byId("clear").addEventListener("click", clear);
  byId("circle").addEventListener("click", () => circle((active || views[0]).plane));
  byId("angle").addEventListener("input", () => setAngle(Number(byId("angle").value)));
  byId("turn").addEventListener("click", () => setTurning(!turning));
  window.addEventListener("resize", layOut);
}
async function begin() {
  if (!window.DecompressionStream) throw new Error("this browser cannot unpack it; one of 2023 or later can");
  for (const key of [...SOURCES, "fused"]) images[key].raw = await unpack(key);
  Object.values(images).forEach(lookUp);
  buildViews();
  build();
  setOverlay(state.overlay);
  layOut();
  document.documentElement.dataset.ready = "true";
}
begin().catch((error) => {
  byId("trouble").hidden = false;
  byId("trouble").textContent = `The pictures cannot be shown: ${error.message}`;
});
