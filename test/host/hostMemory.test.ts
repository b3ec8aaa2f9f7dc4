import { mkdir, writeFile } from 'node:fs/promises';
import { freemem, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import {
  type KernelFolders,
  parseCgroupBytes,
  parseCgroups,
  parseInactiveFileBytes,
  parseMeminfo,
  readHostMemory,
} from '../../src/host/hostMemory.js';
import { cleanUp, temporaryFolder } from './support.js';

afterEach(cleanUp);

const GIB = 1024 ** 3;
const meminfo = `MemTotal:       16777216 kB
MemFree:         1048576 kB
MemAvailable:    8388608 kB
Buffers:          524288 kB
Cached:          4194304 kB
SwapTotal:             0 kB
`;

/** /proc and /sys/fs/cgroup with these files. */
async function kernelWith(files: Readonly<Record<string, string>>): Promise<KernelFolders> {
  const folder = await temporaryFolder();
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), content);
  }
  return { proc: join(folder, 'proc'), cgroup: join(folder, 'cgroup') };
}

describe('readHostMemory', () => {
  it('tells the machine it runs on', () => {
    const memory = readHostMemory();
    expect(memory.totalBytes).toBeGreaterThan(64 * 1024 * 1024);
    expect(memory.totalBytes).toBeLessThanOrEqual(totalmem());
    expect(memory.availableBytes).toBeGreaterThan(0);
    expect(memory.availableBytes).toBeLessThanOrEqual(memory.totalBytes);
  });

  it('falls back to what Node knows where there is no /proc', async () => {
    const memory = readHostMemory(await kernelWith({}));
    expect(memory).toMatchObject({ totalBytes: totalmem(), limitedBy: 'machine' });
    // Other programs come and go between the two reads.
    expect(Math.abs(memory.availableBytes - freemem())).toBeLessThan(totalmem() / 2);
  });

  it('takes the tightest limit of the groups that the process lies in, without pages that can go', async () => {
    const folders = await kernelWith({
      'proc/meminfo': meminfo,
      'proc/self/cgroup': '0::/system.slice/llama-orch.service/engines\n',
      'cgroup/system.slice/memory.max': `${12 * GIB}\n`,
      'cgroup/system.slice/memory.current': `${9 * GIB}\n`,
      'cgroup/system.slice/memory.stat': `anon ${6 * GIB}\ninactive_file ${GIB}\n`,
      'cgroup/system.slice/llama-orch.service/memory.max': `${8 * GIB}\n`,
      'cgroup/system.slice/llama-orch.service/memory.current': `${GIB}\n`,
      'cgroup/system.slice/llama-orch.service/engines/memory.max': 'max\n',
      'cgroup/system.slice/llama-orch.service/engines/memory.current': `${GIB}\n`,
    });
    expect(readHostMemory(folders)).toEqual({ totalBytes: 8 * GIB, availableBytes: 4 * GIB, limitedBy: 'cgroup' });
  });

  it('reads version 1 as a container sees it, whose own path does not exist inside', async () => {
    const folders = await kernelWith({
      'proc/meminfo': meminfo,
      'proc/self/cgroup': '4:memory,hugetlb:/docker/0123abcd\n1:cpu:/docker/0123abcd\n',
      'cgroup/memory/memory.limit_in_bytes': `${2 * GIB}\n`,
      'cgroup/memory/memory.usage_in_bytes': `${3 * GIB}\n`,
      'cgroup/memory/memory.stat': `inactive_file 7\ntotal_inactive_file ${2 * GIB}\n`,
    });
    expect(readHostMemory(folders)).toEqual({ totalBytes: 2 * GIB, availableBytes: GIB, limitedBy: 'cgroup' });
  });

  it('stays with the machine where no group sets a limit', async () => {
    const folders = await kernelWith({
      'proc/meminfo': meminfo,
      'proc/self/cgroup': '4:memory:/\n0::/\n',
      'cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
      'cgroup/memory/memory.usage_in_bytes': `${3 * GIB}\n`,
    });
    expect(readHostMemory(folders)).toEqual({ totalBytes: 16 * GIB, availableBytes: 8 * GIB, limitedBy: 'machine' });
  });

  it('has nothing left, not less, in a group over its limit', async () => {
    const folders = await kernelWith({
      'proc/meminfo': meminfo,
      'proc/self/cgroup': '0::/a/../../../b\n',
      'cgroup/a/b/memory.max': `${GIB}\n`,
      'cgroup/a/b/memory.current': `${2 * GIB}\n`,
    });
    expect(readHostMemory(folders)).toEqual({ totalBytes: GIB, availableBytes: 0, limitedBy: 'cgroup' });
  });
});

describe('what the kernel writes', () => {
  it('meminfo, also of a kernel without MemAvailable', () => {
    expect(parseMeminfo(meminfo)).toEqual({ totalBytes: 16 * GIB, availableBytes: 8 * GIB });
    expect(parseMeminfo(meminfo.replace(/MemAvailable.*\n/, ''))).toEqual({
      totalBytes: 16 * GIB,
      availableBytes: 5.5 * GIB,
    });
    for (const text of ['', 'MemTotal: many kB\n', 'MemTotal:       0 kB\n', 'MemFree: 5 kB\n']) {
      expect(parseMeminfo(text)).toBeNull();
    }
  });

  it('the groups of a process: version 2, version 1, both, none', () => {
    expect(parseCgroups('0::/user.slice\n')).toEqual({ v2: '/user.slice', v1Memory: null });
    const both = '9:name=systemd:/\n4:cpu,memory:/a:b\n0::/\n';
    expect(parseCgroups(both)).toEqual({ v2: '/', v1Memory: '/a:b' });
    expect(parseCgroups('garbage\n\n1:memory\n')).toEqual({ v2: null, v1Memory: null });
  });

  it('limits and statistics', () => {
    expect(['max\n', '', '-1', '12 13', '4096\n'].map(parseCgroupBytes)).toEqual([null, null, null, null, 4096]);
    const stat = 'inactive_file 10\ntotal_inactive_file 30\n';
    expect([parseInactiveFileBytes(stat, 2), parseInactiveFileBytes(stat, 1)]).toEqual([10, 30]);
    expect(parseInactiveFileBytes('', 2)).toBe(0);
  });
});
