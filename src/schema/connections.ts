/**
 * Connections go forward only, in pages whose size the caller must name: `first` becomes required, `before` and `last`
 * are taken out. Pages are found by key, so a deep one costs what the first one costs.
 */
import SchemaBuilder, { BasePlugin, type PothosInputFieldConfig, type SchemaTypes } from '@pothos/core';

export const MAX_PAGE = 100;

const PLUGIN = 'forwardConnections';

class ForwardConnectionsPlugin<Types extends SchemaTypes> extends BasePlugin<Types> {
  override onInputFieldConfig(field: PothosInputFieldConfig<Types>): PothosInputFieldConfig<Types> | null {
    if (field.kind !== 'Arg') return field;
    if (field.name === 'before' || field.name === 'last') return null;
    return field.name === 'first' ? { ...field, type: { ...field.type, required: true } } : field;
  }
}

declare global {
  export namespace PothosSchemaTypes {
    interface Plugins<Types extends SchemaTypes> {
      forwardConnections: ForwardConnectionsPlugin<Types>;
    }
  }
}

SchemaBuilder.registerPlugin(PLUGIN, ForwardConnectionsPlugin);

export default PLUGIN;
