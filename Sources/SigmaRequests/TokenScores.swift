import Sigma

extension TokenNames {
    /// An element for each token: its log-probability, and those of the likeliest ones there.
    func writeScores(of tokens: [AnswerToken], to json: inout JSONWriter) {
        for token in tokens {
            json.object { json in
                write(token.id, token.logProbability, to: &json)
                json.array("top_logprobs") { json in
                    for candidate in token.top {
                        json.object { write(candidate.id, candidate.logProbability, to: &$0) }
                    }
                }
            }
        }
    }

    private func write(_ id: Int32, _ logProbability: Double?, to json: inout JSONWriter) {
        json.field("token", name(of: id))
        json.key("logprob")
        if let logProbability { json.logProbability(logProbability) } else { json.null() }
        if let bytes = bytes(of: id) {
            json.array("bytes") { json in for byte in bytes { json.value(byte) } }
        } else {
            json.key("bytes")
            json.null()
        }
    }
}
