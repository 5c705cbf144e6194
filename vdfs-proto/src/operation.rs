//! Pairs each request with its reply, so that a caller gets the type it asked for.

/// One operation of a service: wrapped into the service's request enum to travel, and taken out of
/// its reply enum on arrival.
pub trait Operation: Sized {
    type Request;
    type Envelope;
    type Reply;

    fn wrap(self) -> Self::Request;
    /// `None` if the envelope holds another operation's reply.
    fn unwrap(envelope: Self::Envelope) -> Option<Self::Reply>;
}

/// Defines a request enum, its reply enum, and an [`Operation`] for each variant, which is named as
/// its payload type.
macro_rules! operations {
    (
        $(#[$request_doc:meta])* $request:ident,
        $(#[$reply_doc:meta])* $envelope:ident
        { $($operation:ident -> $reply:ty),* $(,)? }
    ) => {
        $(#[$request_doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub enum $request { $($operation($operation)),* }

        $(#[$reply_doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub enum $envelope { $($operation($reply)),* }

        impl $request {
            /// Name of the operation, for logs and metrics.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$operation(_) => stringify!($operation)),* }
            }
        }

        $(impl $crate::operation::Operation for $operation {
            type Request = $request;
            type Envelope = $envelope;
            type Reply = $reply;

            fn wrap(self) -> $request {
                $request::$operation(self)
            }

            fn unwrap(envelope: $envelope) -> Option<$reply> {
                #[allow(unreachable_patterns, reason = "an enum of one variant has no other")]
                match envelope {
                    $envelope::$operation(reply) => Some(reply),
                    _ => None,
                }
            }
        })*
    };
}

pub(crate) use operations;
