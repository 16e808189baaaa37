// The form for a token, which is there only if the broker asks who the visitor is. The token stays in this module's memory
// until the page is left: it is in no address, no storage and no form history.

/** Codes of the broker, in errors and of a close, that another token may answer. */
const ASKS = new Set(['unauthorized', 'bad-token', 4400, 4401, 4408]);

const by = (id) => document.getElementById(id);
const ui = { form: by('access'), field: by('token'), problem: by('access-problem') };

let token;

/** The token that was entered, or undefined. */
export const currentToken = () => token;

/** Shows the form if this code of an error or of a close asks for a token. */
export function askAccess(code) {
  if (!ASKS.has(code)) return;
  ui.problem.textContent = token === undefined ? '' : 'The broker does not take that token, or it has ended.';
  ui.form.hidden = false;
}

/** Calls `connect` when a token was entered. */
export function whenEntered(connect) {
  ui.form.addEventListener('submit', (event) => {
    event.preventDefault();
    token = ui.field.value.trim() || undefined;
    ui.field.value = '';
    ui.form.hidden = true;
    connect();
  });
}
