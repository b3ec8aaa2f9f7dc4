// Typed documents for the client (the CLI) and the tests, from the committed schema. Run by `npm run contracts`.
import type { CodegenConfig } from '@graphql-codegen/cli';

const config: CodegenConfig = {
  schema: 'contracts/schema.graphql',
  documents: ['src/client/**/*.ts', 'test/**/*.ts', '!src/client/gql/**'],
  ignoreNoDocuments: true,
  silent: true,
  generates: {
    'src/client/gql/': {
      preset: 'client',
      presetConfig: { fragmentMasking: false },
      config: {
        useTypeImports: true,
        // Union types of strings: the code base has no TypeScript enums.
        enumsAsTypes: true,
        documentMode: 'documentNode',
        strictScalars: true,
        scalars: {
          DateTime: 'string',
          BigInt: 'string',
          UUID: 'string',
          JSON: 'unknown',
          DisconnectGrace: 'boolean | number',
        },
      },
    },
  },
  emitLegacyCommonJSImports: false,
  importExtension: '.js',
};

export default config;
