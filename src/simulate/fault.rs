//! What fails in simulated calls, as the provider's `errors` tell it.

/// One member of an event's `errors`.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// The provider's code.
    pub code: &'static str,
    /// One line for people.
    pub message: &'static str,
    /// The part of the provider's program.
    pub location: &'static str,
    /// The phase of the call.
    pub phase: &'static str,
    /// Where the program was; often empty.
    pub stacktrace: &'static str,
}

/// The instruction to dial was refused.
pub const UNDIALLED: [Fault; 1] = [Fault {
    code: "PROVIDER_REJECTED",
    message: "The number is not in service",
    location: "OutboundCallAdapter.request",
    phase: "PENDING",
    stacktrace: "",
}];

/// The connection could not be made.
pub const CONNECTING: [Fault; 1] = [Fault {
    code: "NETWORK_ERROR",
    message: "Connection timed out",
    location: "OutboundCallAdapter.connect",
    phase: "CONNECTING",
    stacktrace: "",
}];

/// The agent failed while it talked.
pub const IN_CONVERSATION: [Fault; 1] = [Fault {
    code: "LLM_TIMEOUT",
    message: "The model gave no answer within 10 s",
    location: "Conversation.respond",
    phase: "CALLING",
    stacktrace: "TimeoutError: no answer\n    at Conversation.respond (conversation.js:214:11)\n    \
                 at async Conversation.turn (conversation.js:97:5)",
}];

/// Failed, but the conversation went on.
pub const SURVIVED: [Fault; 2] = [
    Fault {
        code: "TTS_FALLBACK",
        message: "Voice provider fell back",
        location: "Speech.say",
        phase: "CALLING",
        stacktrace: "",
    },
    Fault {
        code: "WEBHOOK_TOOL_FAILED",
        message: "Tool answered 500",
        location: "Tools.call",
        phase: "CLOSING",
        stacktrace: "",
    },
];

/// An incoming call could not be kept.
pub const INBOUND: [Fault; 1] = [Fault {
    code: "NETWORK_ERROR",
    message: "Connection timed out",
    location: "InboundCallAdapter.accept",
    phase: "CALLING",
    stacktrace: "",
}];
