// Asks the gateway as OpenAI's JavaScript client does, and prints what came back as one JSON object.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "none", maxRetries: 0 });
const { chat, tool } = JSON.parse(process.env.QUESTIONS);

const plain = await client.chat.completions.create(chat);
const stream = client.chat.completions.stream({ ...chat, stream_options: { include_usage: true } });
const streamed = await stream.finalChatCompletion();
const completion = await client.completions.create({ model: chat.model, prompt: "What does a plugin do?", max_tokens: 8 });

const models = [];
for await (const model of client.models.list()) models.push(model.id);

const error = await client.chat.completions.create({ ...chat, model: "nobody's" }).catch((error) => ({
  is_not_found: error instanceof OpenAI.NotFoundError,
  status: error.status,
  code: error.code,
  param: error.param,
}));

const called = tool && (await client.chat.completions.create(tool));
const calling = tool && (await client.chat.completions.stream(tool).finalChatCompletion());

console.log(JSON.stringify({ plain, streamed, completion, models, error, called, calling }));
