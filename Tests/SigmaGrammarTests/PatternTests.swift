import Testing

@testable import SigmaGrammar

@Suite struct PatternTests {
    /// An expression, a text that it matches somewhere, and one that it doesn't.
    static let searches: [(String, String, String)] = [
        ("a", "xay", "xby"), ("^a", "ab", "ba"), ("a$", "ba", "ab"), ("^a$", "a", "aa"), ("^$", "", "a"),
        ("^a|b$", "ax", "xa"), ("^a|b$", "xb", "bx"), ("(^a|x)b", "ab", "cb"), ("(^a|x)b", "zxb", "zab"),
        ("^(a|b)+$", "abba", "abc"), ("^a{2,3}$", "aaa", "aaaa"), ("^a{2}$", "aa", "a"), ("^a{2,}$", "aaaa", "a"),
        ("^[a-c]+$", "abc", "abd"), ("^[^a-c]+$", "xyz", "xbz"), ("^\\d{3}$", "123", "12a"), ("^\\w+$", "a_9", "a-9"),
        ("^\\s$", "\u{2003}", "x"), ("^\\S+$", "äö", "a b"), ("^.$", "漢", "\n"), ("^[\\d-]+$", "1-2", "a"),
        ("^\\u00e9$", "é", "e"), ("^\\x41\\cJ$", "A\n", "AJ"), ("^\\p{Lu}\\p{L}+$", "Éab", "éab"),
        ("^\\p{Nd}+$", "১২", "ab"), ("^\\ud83d\\ude00$", "😀", "😁"), ("^\\u{1F600}$", "😀", "😁"),
        ("^(?!foo)\\w+$", "barfoo", "foobar"), ("^(?=.*\\d)(?=.*[a-z]).{4,}$", "ab1c", "abcd"),
        ("^(?=.*\\d)(?=.*[a-z]).{4,}$", "1abc", "a1b"), ("^(?:a(?!b)|c)$", "a", "ab"),
        ("(?<year>\\d{4})", "in 2024", "in 24"),
        ("^a*?b+?$", "aabb", "aa"), ("^\\/\\-\\.$", "/-.", "/-x"), ("^a{,2}$", "a{,2}", "aa"), ("^[]$|b", "b", "a"),
        ("^[\\w.]+@[\\w]+\\.[a-z]{2,}$", "a.b@c.de", "a.b@c.d"), ("^x?$", "", "y"), ("a.c", "a-c", "a\nc"),
        ("^(([a-z])+.)+[A-Z]([a-z])+$", "aaaa.Cd", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ]

    @Test(arguments: searches)
    func search(_ expression: String, _ matching: String, _ other: String) throws {
        var arena = RegexArena()
        let language = try arena.search(expression)
        let matches = [matching, other].map { arena.matches(language, $0) }
        #expect(matches == [true, false])
        let isLive = arena.isLive(language)
        #expect(isLive)
    }

    static let unsupported: [String] = [
        "(a)\\1", "\\bfoo", "(?<=a)b", "(?i)a", "(?P<n>a)", "a**", "(", ")", "[a", "a{3,2}", "\\Z", "[b-a]",
        "\\p{Script=Greek}",
        "*a", "\\", "\\u12", "(?=a)*", "a*^b",
    ]

    @Test(arguments: unsupported)
    func refused(_ expression: String) {
        var arena = RegexArena()
        #expect(throws: PatternError.self) { try arena.search(expression) }
    }

    @Test func wholeMatchIsAnchored() throws {
        #expect(try accepts(.regex("[a-z]+[0-9]?"), "abc1"))
        #expect(try !accepts(.regex("[a-z]+[0-9]?"), "abc12"))
        #expect(try !accepts(.regex("[a-z]+[0-9]?"), " abc"))
        #expect(try accepts(.regex("line\\n\"quoted\" \\\\ é"), "line\n\"quoted\" \\ é"))
        #expect(refusal(.regex("(?=a)b"))?.reason == .unsatisfiable)
        #expect(refusal(.regex("(a"))?.keyword == "regex")
    }

    @Test func choicesShareStems() throws {
        let constraint = Constraint.choice(["red", "green", "grey", "gre", "日本", ""])
        for text in ["red", "green", "grey", "gre", "日本", ""] { #expect(try accepts(constraint, text)) }
        for text in ["re", "gr", "greens", "日", " red"] { #expect(try !accepts(constraint, text)) }
        #expect(refusal(.choice([]))?.reason == .invalid)
    }

    @Test func complementsAndIntersections() throws {
        var arena = RegexArena()
        let even = try arena.wholeMatch("(?:..)*")
        let words = try arena.wholeMatch("[a-z]*")
        let both = arena.and(even, words)
        let inside = ["abcd", "abc", "ab1d"].map { arena.matches(both, $0) }
        #expect(inside == [true, false, false])
        let complement = arena.not(both)
        let outside = ["abcd", "abc", "漢字"].map { arena.matches(complement, $0) }
        #expect(outside == [false, true, true])
        let nothing = arena.and(both, complement)
        let isLive = arena.isLive(nothing)
        #expect(!isLive)
        let short = arena.repeat(RegexArena.anyScalar, min: 0, max: 3)
        let long = arena.and(try arena.wholeMatch("[a-z]{4}.*"), short)
        let longIsLive = arena.isLive(long)
        #expect(long != RegexArena.empty && !longIsLive)
    }
}
