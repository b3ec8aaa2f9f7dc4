/** Operations of the contract that no route answers yet: one that is served has to go from this list. */
export const NOT_SERVED_YET: readonly string[] = [
  'createCatalogModel',
  'getCatalogModel',
  'deleteCatalogModel',
  'verifyCatalogModel',
  'setCatalogModelState',
  'createArtifact',
  'getArtifact',
];
