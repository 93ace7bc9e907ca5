// Makes a contact and reads it in a list, with types that openapi-typescript wrote into crm.ts.
import createClient from "openapi-fetch";
import type { paths } from "./crm.js";

declare const process: { argv: string[] };
const [baseUrl, key] = process.argv.slice(2) as [string, string];
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${key}` } });

const made = await client.POST("/crm/v1/contacts", {
  params: { header: { "Idempotency-Key": crypto.randomUUID() } },
  body: { name: "Priya Raghavan", phone: "+910000000000" },
});
if (!made.data) throw new Error(made.error.detail);
const listed = await client.GET("/crm/v1/contacts", { params: { query: { limit: 5 } } });
if (!listed.data) throw new Error(listed.error.detail);
const missing = await client.GET("/crm/v1/contacts/{id}", {
  params: { path: { id: "ctc_01J9XQ4T0V8Y3K6M2N5P7R9S1A" } },
});
const count: number = listed.data.data.filter((contact) => contact.id === made.data.id).length;
console.log(made.data.phone_e164, count, missing.error?.code);
