// Runs before the page is drawn, so that it never flashes in the wrong colours; hence a script of its own.
(() => {
  try {
    const theme = localStorage.getItem("kilonova.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is turned off: the system's colours will do.
  }
})();
