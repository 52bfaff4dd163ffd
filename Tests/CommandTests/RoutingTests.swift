import Foundation
import Testing

#if canImport(FoundationXML)
    import FoundationXML
#endif

@Suite struct RoutingTests {
    static let text = String(repeating: EvalTests.text, count: 20)

    func report(_ arguments: [String], input: [UInt8] = []) throws -> [String: Any] {
        let result = try Subprocess.run("sigma-eval", ["routing", "--json"] + arguments, input: input)
        #expect(result.code == 0, "\(result.errors)")
        #expect(result.errors.isEmpty)
        return try #require(try JSONSerialization.jsonObject(with: Data(result.output)) as? [String: Any])
    }

    @Test func quantities() throws {
        let file = try Scratch.file("text.txt", Self.text)
        let report = try report([file, "--model", TestModels.demo, "--context", "100", "--tau", "0.5"])
        let tokenizer = try TestModels.tokenizer()
        let count = tokenizer.encode(Self.text, recognizingSpecials: false).count
        let step = tokenizer.addsBos ? 99 : 100
        let windows = (count + step - 1) / step
        #expect(report["windows"] as? Int == windows)
        #expect(report["tokens"] as? Int == count + (tokenizer.addsBos ? windows : 0))
        #expect(report["tau"] as? Double == 0.5)
        let layers = try #require(report["layers"] as? [[String: Any]])
        let experts = try #require(report["experts"] as? Int)
        for layer in layers {
            let f = try #require(layer["f"] as? [Double])
            let p = try #require(layer["p"] as? [Double])
            #expect(f.count == experts && p.count == experts)
            #expect(abs(f.reduce(0, +) - 1) < 1e-9 && abs(p.reduce(0, +) - 1) < 1e-9)
            let loss = Double(experts) * zip(f, p).reduce(0) { $0 + $1.0 * $1.1 }
            #expect(abs(try #require(layer["lbl"] as? Double) - loss) < 1e-9)
            #expect(abs(try #require(layer["deviation_max"] as? Double) - (f.max()! * Double(experts) - 1)) < 1e-9)
            #expect(abs(try #require(layer["deviation_min"] as? Double) - (f.min()! * Double(experts) - 1)) < 1e-9)
            // Between uniform and one expert alone.
            let top1 = try #require(layer["top1_lbl"] as? Double)
            #expect(top1 >= 1 && top1 <= Double(experts))
            #expect((layer["unused"] as? [Int])?.count == f.count { $0 == 0 })
        }
        let cache = try #require(report["cache"] as? [String: Any])
        let lru = try #require(cache["lru"] as? [Double])
        let best = try #require(cache["belady"] as? [Double])
        #expect(lru.count == layers.count * experts && best.count == lru.count)
        #expect(zip(lru, best).allSatisfy { $0 <= $1 } && lru == lru.sorted() && best == best.sorted())
        // Fewer slots than layers: LRU has always dropped what comes next.
        #expect(lru[layers.count - 2] == 0 && lru.last! > 0.5 && lru.last == best.last)
    }

    @Test func textsInAnyOrderOfReading() throws {
        let file = try Scratch.file("text.txt", Self.text)
        let arguments = ["--model", TestModels.demo, "--context", "64"]
        let one = try Subprocess.run("sigma-eval", ["routing", "--json", file, "--threads", "1"] + arguments)
        let two = try Subprocess.run(
            "sigma-eval", ["routing", "--json", "-", "--threads", "2"] + arguments, input: Array(Self.text.utf8))
        #expect(one.code == 0 && one.output == two.output)
        // Each file begins a window.
        let twice = try report([file, file] + arguments)
        let once = try report([file] + arguments)
        #expect(twice["tokens"] as? Int == 2 * (once["tokens"] as? Int ?? 0))
        #expect(twice["windows"] as? Int == 2 * (once["windows"] as? Int ?? 0))
        let shares = { (report: [String: Any]) in (report["layers"] as? [[String: Any]])?.map { $0["f"] as? [Double] } }
        #expect(shares(twice) == shares(once))
        // Special tokens are other tokens.
        let chat = try Scratch.file("chat.txt", "<|user|>What is 1 + 2?<|end|>")
        let plain = try report([chat, "--model", TestModels.demo])
        let special = try report([chat, "--special", "--model", TestModels.demo])
        #expect((special["tokens"] as? Int ?? 0) < (plain["tokens"] as? Int ?? 0))
    }

    @Test func tracesReplay() throws {
        let file = try Scratch.file("text.txt", Self.text)
        let trace = Scratch.path("experts.trace")
        let surveyed = try report([file, "--model", TestModels.demo, "--expert-trace", trace])
        let replayed = try report(["--replay", trace, "--model", TestModels.demo])
        #expect(replayed["tokens"] as? Int == surveyed["tokens"] as? Int)
        for key in ["cache"] { #expect(replayed[key] as? NSDictionary == surveyed[key] as? NSDictionary) }
        for (a, b) in zip(
            try #require(replayed["layers"] as? [[String: Any]]), try #require(surveyed["layers"] as? [[String: Any]]))
        {
            #expect(a["f"] as? [Double] == b["f"] as? [Double])
            #expect(a["p"] == nil && b["p"] != nil)
        }
        let other = try Subprocess.run("sigma-eval", ["routing", "--replay", trace, "--model", TestModels.demoFloat])
        #expect(other.code == 65)
        #expect(other.errors.contains("trace of the model") && other.errors.split(separator: "\n").count == 2)
    }

    /// The picture is XML, is drawn of text and shapes only, and has what was asked for in it.
    @Test func plots() throws {
        let file = try Scratch.file("text.txt", Self.text)
        let plot = Scratch.path("routing.svg")
        let arguments = ["--model", TestModels.demo, "--plot", plot, "--plot-layers", "1,2,3"]
        let result = try Subprocess.run("sigma-eval", ["routing", file] + arguments)
        #expect(result.code == 0, "\(result.errors)")
        #expect(result.text.contains("LRU hits"))
        let reader = SVGReader()
        let parser = XMLParser(data: try Data(contentsOf: URL(fileURLWithPath: plot)))
        parser.delegate = reader
        #expect(parser.parse())
        #expect(reader.names == ["svg", "title", "style", "rect", "text", "line", "path", "circle", "g"])
        for layer in 1...3 { #expect(reader.text.contains("Layer \(layer): f and p of each expert")) }
        #expect(!reader.text.contains("Layer 0: f"))
        #expect(reader.text.contains("prefers-color-scheme:dark"))
        #expect(!reader.text.contains("nan") && !reader.text.contains("inf"))
    }

    @Test func wrongUsage() throws {
        let model = ["--model", TestModels.demo]
        let file = try Scratch.file("text.txt", Self.text)
        for (arguments, code) in [
            ([], 64), ([file, "--tau", "0"], 64), ([file, "--tau", "nan"], 64), ([file, "--context", "0"], 64),
            (["-", "-"], 64), ([file, "--plot-layers", "0"], 64),
            ([file, "--plot", "/tmp/x.svg", "--plot-layers", "9"], 64),
            ([file, "--plot", "/tmp/x.svg", "--plot-layers", "a"], 64), ([file, "--replay", file], 64),
            (["--replay", file], 65), ([Scratch.path("missing")], 66), ([Scratch.folder], 65),
            ([try Scratch.file("empty", "")], 65), (["--replay", Scratch.path("missing")], 66),
            ([file, "--plot", "/no/such/folder/x.svg"], 66), ([file, "--expert-trace", "/no/such/folder/x"], 66),
        ] as [([String], Int32)] {
            let result = try Subprocess.run("sigma-eval", ["routing"] + arguments + model)
            #expect(result.code == code, "\(arguments): \(result.errors)")
            #expect(result.output.isEmpty)
        }
        let bare = try Subprocess.run("sigma-eval", ["routing", file, "--model", TestModels.bare])
        #expect(bare.code == 65)
    }
}

/// Names of the elements and all text of a picture.
private final class SVGReader: NSObject, XMLParserDelegate {
    var names: Set<String> = []
    var text = ""

    func parser(
        _ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?,
        attributes: [String: String]
    ) {
        names.insert(name)
    }

    func parser(_ parser: XMLParser, foundCharacters string: String) { text += string }
}
