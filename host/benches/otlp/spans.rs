//! Requests of spans in protobuf, written once and given new ids for each sending.

/// Spans of one request, as many as SDKs gather.
pub const SPANS: usize = 500;

/// Spans of one trace; the last of them is a call of a model.
const TRACE: usize = 5;

/// A request, and where its ids are.
pub struct Template {
    bytes: Vec<u8>,
    /// Place of each span's trace id, of its own id, and of its parent's.
    ids: Vec<[Option<usize>; 3]>,
}

impl Template {
    pub fn new() -> Self {
        let mut spans = Vec::new();
        let mut ids = Vec::new();
        for number in 0..SPANS {
            let (span, places) = span(number);
            let at = spans.len() + head(span.len());
            ids.push(places.map(|place| place.map(|place| place + at)));
            field(&mut spans, 2, &span);
        }
        let mut scope = Vec::new();
        field(&mut scope, 1, b"shop.lib");
        let mut resource = Vec::new();
        field(&mut resource, 1, &attribute("service.name", &text("shop")));
        let mut process = Vec::new();
        field(&mut process, 1, &resource);
        let mut of_scope = Vec::new();
        field(&mut of_scope, 1, &scope);
        let before_spans = of_scope.len();
        of_scope.extend_from_slice(&spans);
        let before_scope = process.len() + head(of_scope.len());
        field(&mut process, 2, &of_scope);
        let mut bytes = Vec::new();
        let offset = head(process.len()) + before_scope + before_spans;
        field(&mut bytes, 1, &process);
        for place in ids.iter_mut().flatten().flatten() {
            *place += offset;
        }
        Self { bytes, ids }
    }

    /// The request with ids that no other number has.
    pub fn numbered(&mut self, number: u64) -> &[u8] {
        for (at, places) in self.ids.iter().enumerate() {
            let trace = (number * SPANS as u64 + (at - at % TRACE) as u64 + 1).to_be_bytes();
            let id = |at: usize| (number * SPANS as u64 + at as u64 + 1).to_be_bytes();
            let parent = id(at.saturating_sub(1));
            for (place, value) in places.iter().zip([trace, id(at), parent]) {
                if let Some(place) = *place {
                    self.bytes[place..place + 8].copy_from_slice(&value);
                }
            }
        }
        &self.bytes
    }
}

/// A span of 20 attributes, and where its ids are in it.
fn span(number: usize) -> (Vec<u8>, [Option<usize>; 3]) {
    let is_call = number % TRACE == TRACE - 1;
    let mut span = Vec::new();
    field(&mut span, 1, &[1; 16]);
    // The lower half of it is what changes.
    let trace = span.len() - 8;
    field(&mut span, 2, &[1; 8]);
    let id = span.len() - 8;
    let parent = (!number.is_multiple_of(TRACE)).then(|| {
        field(&mut span, 4, &[1; 8]);
        span.len() - 8
    });
    field(&mut span, 5, if is_call { b"chat gpt-4o-mini" } else { b"GET /v1/orders/{id}" });
    span.extend([6 << 3, if is_call { 3 } else { 2 }]);
    for (key, nanos) in [(7, 1_790_000_000_000_000_000_u64), (8, 1_790_000_000_012_000_000)] {
        span.push(key << 3 | 1);
        span.extend(nanos.to_le_bytes());
    }
    let call = [
        ("gen_ai.operation.name", text("chat")),
        ("gen_ai.provider.name", text("openai")),
        ("gen_ai.request.model", text("gpt-4o-mini")),
        ("gen_ai.usage.input_tokens", int(1000)),
        ("gen_ai.usage.output_tokens", int(100)),
    ];
    let plain = [
        ("http.request.method", text("GET")),
        ("url.path", text("/v1/orders/4711")),
        ("http.route", text("/v1/orders/{id}")),
        ("http.response.status_code", int(200)),
        ("server.port", int(8080)),
    ];
    let mut attributes: Vec<Vec<u8>> = Vec::new();
    for (key, value) in if is_call { call } else { plain } {
        attributes.push(attribute(key, &value));
    }
    for more in attributes.len()..20 {
        let value = match more % 3 {
            0 => int(number as u64),
            1 => text("a value of the length that values have"),
            _ => text("eu-central-1"),
        };
        attributes.push(attribute(&format!("app.attribute.{more}"), &value));
    }
    for attribute in attributes {
        field(&mut span, 9, &attribute);
    }
    (span, [Some(trace), Some(id), parent])
}

fn attribute(key: &str, value: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    field(&mut message, 1, key.as_bytes());
    field(&mut message, 2, value);
    message
}

fn text(value: &str) -> Vec<u8> {
    let mut message = Vec::new();
    field(&mut message, 1, value.as_bytes());
    message
}

fn int(value: u64) -> Vec<u8> {
    let mut message = vec![3 << 3];
    varint(&mut message, value);
    message
}

/// A field with a length.
fn field(to: &mut Vec<u8>, number: u8, content: &[u8]) {
    to.push(number << 3 | 2);
    varint(to, content.len() as u64);
    to.extend_from_slice(content);
}

/// Bytes before the content of a field of that length.
fn head(length: usize) -> usize {
    let mut bytes = Vec::new();
    varint(&mut bytes, length as u64);
    1 + bytes.len()
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        to.push((value & 127) as u8 | 128);
        value >>= 7;
    }
    to.push(value as u8);
}
