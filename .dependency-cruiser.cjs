// The floors of the house (ARCHITECTURE.md): a file imports from its own floor's folder and from lower floors only.
const FLOORS = [
  ['core'],
  ['runtime', 'config', 'telemetry'],
  ['store', 'engines', 'host'],
  ['services'],
  ['schema', 'rest', 'cli', 'client'],
  ['server'],
];

const upward = FLOORS.slice(0, -1).map((folders, floor) => ({
  name: `floor-${floor}-imports-upward`,
  severity: 'error',
  from: { path: `^src/(${folders.join('|')})/` },
  to: {
    path: `^src/(${FLOORS.slice(floor + 1)
      .flat()
      .join('|')})/`,
  },
}));

const sideways = FLOORS.flatMap((folders, _floor) =>
  folders.map((folder) => ({
    name: `${folder}-imports-its-neighbour`,
    severity: 'error',
    from: { path: `^src/${folder}/` },
    to: {
      path: `^src/(${folders.filter((other) => other !== folder).join('|') || '-'})/`,
      // The command line is a client: it may use the typed documents.
      ...(folder === 'cli' ? { pathNot: '^src/client/' } : {}),
    },
  })),
).filter((rule) => !rule.to.path.includes('(-)'));

module.exports = {
  forbidden: [
    ...upward,
    ...sideways,
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'core-is-pure',
      comment: 'No packages, no node: modules below.',
      severity: 'error',
      from: { path: '^src/core/' },
      to: { pathNot: '^src/core/' },
    },
    {
      name: 'doors-stay-off-the-floor-below-services',
      comment: "Exception: Pothos' Prisma plugin needs the generated client's types.",
      severity: 'error',
      from: { path: '^src/(schema|rest|cli|client)/' },
      to: { path: '^src/(store|engines|host)/', pathNot: '^src/store/generated/' },
    },
    {
      name: 'services-know-no-driver',
      severity: 'error',
      from: { path: '^src/services/' },
      to: { path: 'node_modules/(@prisma|pg|graphql|graphql-yoga|@pothos)|^node:child_process|^src/store/generated/' },
    },
    {
      name: 'nobody-imports-the-server',
      severity: 'error',
      from: { path: '^src/(?!server/)' },
      to: { path: '^src/server/' },
    },
    {
      name: 'no-orphans',
      severity: 'error',
      from: { orphan: true, path: '^src/', pathNot: '^src/store/generated/' },
      to: {},
    },
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules|^src/store/generated' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'require', 'node', 'default'] },
  },
};
