// A Vite project whose pages use a broker at 127.0.0.1:8080: they connect to their own host, and Vite's development server
// passes it on. `new WebSocket(`ws://${location.host}/ws`, 'ringyard.v1')`.
const broker = { target: 'http://127.0.0.1:8080', ws: true };

export default {
  server: {
    // No `changeOrigin`: it gives the broker its own address as Host, but the page's Origin, which then differ: 403.
    proxy: { '/ws': broker, '/sub': broker, '/pub': broker, '/bus': broker },
  },
};
