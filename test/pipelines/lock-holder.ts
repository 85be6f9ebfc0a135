/** Takes the lock named on the command line, says so, and holds it until it is killed. */
import { takeLock } from "../../pipelines/lock.js";

await takeLock(process.argv[2]!);
process.stdout.write("locked\n");
setInterval(() => {}, 1000);
