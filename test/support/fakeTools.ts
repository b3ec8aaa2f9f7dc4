/** Programs that stand in for an engine and for the tools that make one: real scripts that do real work, in a folder for PATH. */
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';

const SIM = resolve('dist/engines/sim/main.js');

/** A `llama-server` that understands our arguments and answers as the simulator does. */
export const LLAMA_SERVER = `#!/bin/sh
slots=1
while [ $# -gt 0 ]; do
  case "$1" in
    --port) port=$2; shift 2 ;;
    --alias) model=$2; shift 2 ;;
    -c) context=$2; shift 2 ;;
    -np) slots=$2; shift 2 ;;
    *) shift ;;
  esac
done
exec '${process.execPath}' '${SIM}' --protocol llamacpp --port "$port" --model "$model" --ctx $((context / slots)) \\
  --slots "$slots" --tokens-per-second 0
`;

/** The same, in a process whose arguments stay what it was started with, as a real engine's do. */
export const LLAMA_SERVER_IN_PLACE = `#!${process.execPath}
const given = (flag) => process.argv[process.argv.indexOf(flag) + 1];
const slots = given('-np');
process.argv.splice(2, Infinity, '--protocol', 'llamacpp', '--port', given('--port'), '--model', given('--alias'),
  '--ctx', String(Number(given('-c')) / Number(slots)), '--slots', slots, '--tokens-per-second', '0');
import('${SIM}');
`;

/** Takes a "source" that is a file named engine, and builds it by copying. */
const CMAKE = `#!/bin/sh
echo "cmake $*" >> "$(dirname "$0")/calls"
if [ "$1" = -S ]; then
  [ -f "$2/engine" ] || { echo "CMake Error: no engine in $2"; exit 1; }
  mkdir -p "$4" && echo "$2" > "$4/source-folder"
  exit 0
fi
mkdir -p "$2/bin" && cp "$(cat "$2/source-folder")/engine" "$2/bin/llama-server" && chmod 755 "$2/bin/llama-server"
`;

/** Images are files in a store; a container is the engine in the place of this script. */
const PODMAN = `#!/bin/sh
here=$(dirname "$0")
echo "podman $*" >> "$here/calls"
name() { echo "$here/store/$(echo "$1" | tr '/:@' '___')"; }
case "$1" in
  image) [ -f "$(name "$3")" ]; exit ;;
  pull) [ -f "$here/broken" ] && { echo 'Error: manifest unknown'; exit 125; }
    mkdir -p "$here/store" && : > "$(name "$3")"; exit ;;
  run) ;;
  *) exit 125 ;;
esac
for variable in LLAMA_ORCH_MARK LLAMA_API_KEY; do
  case " $* " in *" --env $variable "*) ;; *) echo "$variable is not passed on"; exit 125 ;; esac
done
while [ -z "$image" ]; do
  case "$1" in *@sha256:*) image=$1 ;; esac
  shift
done
[ -f "$(name "$image")" ] || { echo "Error: $image: image not known"; exit 125; }
exec "$here/llama-server" "$@"
`;

const SUCCEEDS = '#!/bin/sh\nexit 0\n';

export interface FakeTools {
  /** For the front of PATH. */
  readonly folder: string;
  /** Command lines of cmake and podman, as they came. */
  readonly callsFile: string;
}

export async function makeFakeTools(parent: string): Promise<FakeTools> {
  const folder = join(parent, 'tools');
  await mkdir(folder);
  const scripts = { 'llama-server': LLAMA_SERVER, cmake: CMAKE, podman: PODMAN, make: SUCCEEDS, 'c++': SUCCEEDS };
  for (const [name, text] of Object.entries(scripts)) await writeProgram(join(folder, name), text);
  return { folder, callsFile: join(folder, 'calls') };
}

export async function writeProgram(path: string, text: string): Promise<void> {
  await writeFile(path, text);
  await chmod(path, 0o755);
}
