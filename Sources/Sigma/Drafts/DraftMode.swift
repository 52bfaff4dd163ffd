/// Whether likely next tokens are guessed and verified several at a time. It changes speed only, never the answer.
public enum DraftMode: String, Sendable, CaseIterable {
    /// Where measured costs say that it pays.
    case auto
    /// Wherever there is a guess.
    case on
    case off
}
