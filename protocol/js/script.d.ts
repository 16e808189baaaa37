import type { connect } from "./ringyard.js";

/** What `<script src="ringyard.min.js">` sets. */
declare global {
  const ringyard: { connect: typeof connect };
}

export {};
