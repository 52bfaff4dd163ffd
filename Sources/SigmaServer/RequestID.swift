/// Ids of requests and answers: a prefix and 24 random letters and digits.
enum RequestID {
    static func make(_ prefix: String, _ separator: String = "-") -> String {
        let letters = Array("abcdefghijklmnopqrstuvwxyz0123456789")
        return prefix + separator + String((0..<24).map { _ in letters.randomElement()! })
    }
}
