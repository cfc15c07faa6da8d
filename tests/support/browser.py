"""JavaScript with which tests inspect a page in the browser."""

LOW_CONTRAST = """() => {
    const parse = colour => colour.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => [r, g, b]
        .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const background = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) {
                // The ::before element of a shaded table cell lies over its background.
                const cell = element.closest('.shade');
                if (!cell) return colour;
                const shade = getComputedStyle(cell, '::before');
                const over = parse(shade.backgroundColor), share = Number(shade.opacity);
                return colour.slice(0, 3).map((v, i) => v + (over[i] - v) * share);
            }
        }
    };
    return [...document.querySelectorAll('body *')]
        .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.tagName !== 'title')
        .map(e => {
            const style = getComputedStyle(e);
            const colour = parse(e instanceof SVGElement ? style.fill : style.color);
            const [dark, light] = [luminance(colour), luminance(background(e))].sort((a, b) => a - b);
            return [e.outerHTML.slice(0, 100), (light + 0.05) / (dark + 0.05)];
        })
        .filter(([, ratio]) => ratio < 4.5);
}"""
"""Returns [HTML, ratio] of each text whose contrast with its background is below 4.5 : 1, the minimum of WCAG AA."""
