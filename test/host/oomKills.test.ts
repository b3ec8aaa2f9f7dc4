import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { OomKills, readOomKills } from '../../src/host/oomKills.js';
import { cleanUp, temporaryFolder } from './support.js';

afterEach(cleanUp);

async function kernelWith(files: Readonly<Record<string, string>>) {
  const folder = await temporaryFolder();
  const put = async (name: string, content: string) => {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), content);
  };
  for (const [name, content] of Object.entries(files)) await put(name, content);
  return { folders: { proc: join(folder, 'proc'), cgroup: join(folder, 'cgroup') }, put };
}

const EVENTS = (count: number) => `low 0\nhigh 0\nmax 7\noom 3\noom_kill ${count}\noom_group_kill 0\n`;

describe('kills for lack of memory', () => {
  it('are counted by the control group, in a container by its root, else by the machine', async () => {
    const group = await kernelWith({
      'proc/self/cgroup': '0::/a.slice/b.service\n',
      'cgroup/a.slice/b.service/memory.events': EVENTS(2),
      'cgroup/memory.events': EVENTS(9),
      'proc/vmstat': 'nr_free_pages 1\noom_kill 30\n',
    });
    expect(readOomKills(group.folders)).toBe(2);
    const container = await kernelWith({
      'proc/self/cgroup': '0::/../../elsewhere\n',
      'cgroup/memory.events': EVENTS(4),
    });
    expect(readOomKills(container.folders)).toBe(4);
    const older = await kernelWith({
      'proc/self/cgroup': '4:memory:/docker/x\n0::/\n',
      'cgroup/memory/memory.oom_control': 'oom_kill_disable 0\nunder_oom 0\noom_kill 5\n',
      'proc/vmstat': 'oom_kill 30\n',
    });
    expect(readOomKills(older.folders)).toBe(5);
    expect(readOomKills((await kernelWith({ 'proc/vmstat': 'oom_kill 30\n' })).folders)).toBe(30);
    expect(readOomKills((await kernelWith({ 'proc/vmstat': 'pgfault 30\n' })).folders)).toBeNull();
  });

  it('are told of for a while after the count rose, and not before', async () => {
    const events = 'cgroup/memory.events';
    const { folders, put } = await kernelWith({ 'proc/self/cgroup': '0::/\n', [events]: EVENTS(2) });
    let nowMs = 0;
    const kills = new OomKills(
      () => readOomKills(folders),
      () => nowMs,
    );
    expect(kills.lately()).toBe(false);
    await put(events, EVENTS(3));
    expect(kills.lately()).toBe(true);
    // A second process that went in the same shortage.
    nowMs = 4_000;
    expect(kills.lately()).toBe(true);
    nowMs = 10_000;
    expect(kills.lately()).toBe(false);
    await put(events, '');
    expect(kills.lately()).toBeNull();
  });
});
