/**
 * A thread that ends its process when the parent is gone. The process itself cannot see that while a call into TensorFlow
 * blocks it, and an orphan would go on holding the GPU's memory and the run's lock.
 */
import { workerData } from "node:worker_threads";

const pollMs = 300;

setInterval(() => {
  if (process.ppid !== workerData) process.kill(process.pid, "SIGKILL");
}, pollMs);
