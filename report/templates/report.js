'use strict';
// Find an instance in the grids, point at one, or go from one that did not succeed to the next. The page is whole without.
(() => {
  const source = document.getElementById('lives');
  const tools = document.getElementById('find');
  if (!source || !tools) return;
  const groups = JSON.parse(source.textContent);
  const grids = [...document.querySelectorAll('svg.grid')];
  const words = { s: 'succeeded', f: 'failed', c: 'crashed', q: 'silent', k: 'killed', '.': 'no outcome' };
  const found = document.getElementById('found');
  const seek = document.getElementById('seek');
  const marks = grids.map((svg) => {
    const mark = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    mark.setAttribute('class', 'cell here');
    svg.append(mark);
    svg.classList.add('live');
    return mark;
  });
  let here = null;

  const say = (g, i) => {
    const of = groups[g];
    const word = words[of.kinds[i]] || 'no outcome';
    return `${of.name}/${i}: ${word}` + (of.kinds[i] === '.' ? '' :
      `, ${of.took[i] / 1000} s, ${(of.memory[i] / 1024).toFixed(1)} MiB, ${of.cpu[i] / 1000} s of CPU`);
  };
  const show = (g, i, scroll) => {
    here = { g, i };
    marks.forEach((mark, at) => {
      const x = (i % groups[g].columns) * 10, y = Math.floor(i / groups[g].columns) * 10;
      mark.setAttribute('d', at === g ? `M${x} ${y}h10v10h-10z` : '');
    });
    found.textContent = say(g, i);
    if (scroll) grids[g].scrollIntoView({ block: 'nearest' });
  };

  grids.forEach((svg, g) => {
    const point = (event) => {
      const box = svg.getBoundingClientRect();
      const of = groups[g];
      const size = box.width / of.columns;
      const column = Math.floor((event.clientX - box.left) / size), row = Math.floor((event.clientY - box.top) / size);
      const i = row * of.columns + column;
      if (column >= 0 && column < of.columns && i >= 0 && i < of.kinds.length) show(g, i, false);
    };
    svg.addEventListener('pointermove', point);
    svg.addEventListener('click', point);
  });
  seek.addEventListener('input', () => {
    const [, name, index] = /^\s*(?:(.*)\/)?(\d+)\s*$/.exec(seek.value) || [];
    if (index === undefined) { found.textContent = ''; return; }
    const g = name === undefined ? 0 : groups.findIndex((of) => of.name === name);
    if (g < 0 || Number(index) >= groups[g].kinds.length) { found.textContent = 'There is no such instance.'; return; }
    show(g, Number(index), true);
  });
  document.getElementById('next').addEventListener('click', () => {
    const total = groups.reduce((n, of) => n + of.kinds.length, 0);
    let g = here ? here.g : 0, i = here ? here.i : -1;
    for (let n = 0; n < total; n++) {
      for (i++; i >= groups[g].kinds.length; i = 0) g = (g + 1) % groups.length;
      if (!'sk'.includes(groups[g].kinds[i])) { show(g, i, true); return; }
    }
    found.textContent = 'All have succeeded.';
  });
  document.getElementById('next').hidden = !groups.some((of) => /[^sk]/.test(of.kinds));
  tools.hidden = false;
})();
