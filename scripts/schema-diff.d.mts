/** @param url of a live database; '' when it is as prisma/schema.prisma says */
export function schemaDiff(url: string): Promise<string>;
