import type { WebSocketConstructor } from "./ringyard.js";

/**
 * A class in place of `WebSocket`: its sockets are WebSockets while these work, else server-sent events and HTTP requests. For the option
 * `fallback` of `connect`.
 */
export function fallback(WebSocket: WebSocketConstructor): WebSocketConstructor;
