//! What a program asks of a server, as spans of the program's own making.
//!
//! The library knows no tracing system. A program that has one implements [`Tracer`], and gives
//! it with [`Options::with_tracer`](crate::Options::with_tracer). A server that takes contexts
//! says so when it accepts `connect`; to no other is anything said of them.

use std::fmt::Debug;
use std::sync::Arc;

use amf::Value;
use session::ClientSession;
use session::client::Welcome;

use crate::Error;

/// Makes the spans of a program.
pub trait Tracer: Debug + Send + Sync {
    /// Something is asked of a server.
    fn begin(&self, request: &Request<'_>) -> Box<dyn Span>;
}

/// A request under way. It ends when it is dropped.
pub trait Span: Send {
    /// Where it stands, as a W3C traceparent; none when nobody wants to see it.
    fn context(&self) -> Option<String>;

    /// It failed, and why.
    fn fail(&mut self, why: &str);
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Which kind of thing.
    pub what: What,
    /// Of what: a stream, an object, a method.
    pub name: &'a str,
    /// Of whom: the server's host.
    pub server: &'a str,
}

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// To publish a stream; until the server says that it began.
    Publish,
    /// To play a stream; until the server says that it began.
    Play,
    /// To change an object, or to say something to all who use it; until that is decided.
    Write,
    /// To run a method; until it is answered.
    Call,
}

/// The command by which a server is told which trace the next request belongs to. Servers that
/// do not know it pass over it.
const CONTEXT: &str = "traceparent";

/// The tracer of one connection.
#[derive(Debug)]
pub(crate) struct Traces {
    tracer: Option<Arc<dyn Tracer>>,
    server: String,
    /// The server takes contexts.
    taken: bool,
}

impl Traces {
    pub(crate) const fn new(tracer: Option<Arc<dyn Tracer>>, server: String) -> Self {
        Self {
            tracer,
            server,
            taken: false,
        }
    }

    /// The server accepted `connect`.
    pub(crate) fn welcome(&mut self, welcome: &Welcome) {
        self.taken = matches!(welcome.properties.get(CONTEXT), Some(Value::Boolean(true)));
    }

    /// Something is about to be asked; the server is told of which trace it is.
    pub(crate) fn begin(&self, session: &mut ClientSession, what: What, name: &str) -> Traced {
        let Some(tracer) = &self.tracer else {
            return Traced(None);
        };
        let span = tracer.begin(&Request {
            what,
            name,
            server: &self.server,
        });
        if self.taken
            && let Some(context) = span.context()
        {
            // What is wrong with the session is told by the request that follows.
            let _ = session.notify(CONTEXT, [Value::from(context.as_str())]);
        }
        Traced(Some(span))
    }
}

/// A request that may be traced.
pub(crate) struct Traced(Option<Box<dyn Span>>);

impl Traced {
    /// Whether anybody is told of it.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// The request has this result.
    pub(crate) fn end<T>(mut self, result: &Result<T, Error>) {
        if let (Some(span), Err(error)) = (&mut self.0, result) {
            span.fail(&error.to_string());
        }
    }

    /// The request came to nothing.
    pub(crate) fn fail(&mut self, why: &str) {
        if let Some(span) = &mut self.0 {
            span.fail(why);
        }
    }
}

impl Debug for Traced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Traced").field(&self.is_wanted()).finish()
    }
}
