import ArgumentParser
import Sigma
import SigmaCommand
import SigmaRequests

/// Many prompts from a file.
struct BatchArguments: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Answer the lines of a file of OpenAI's batch form (custom_id, method, url, body), many side by side; - is standard input.",
            valueName: "file"))
    var batch: String?

    @Option(
        help: ArgumentHelp(
            "With --batch, the file of results; an interrupted run goes on where it ended (default: standard output).",
            valueName: "file"))
    var output: String?
}

/// `sigma-run --batch`: lines in, results out.
struct BatchCommand {
    let input: String
    let output: String?
    let engine: Engine
    let kvType: KVType
    let drafts: DraftMode

    private final class Lines {
        private(set) var all: [BatchRun.Line] = []
        private var next = 0

        /// - Throws: `SigmaError`: `.noInput`, `.damaged` where an id is there twice, `.inputOutput`.
        init(_ path: String, without results: BatchResults?) throws {
            var splitter = LineSplitter(path: path)
            var number = 0
            var seen: [ByteKey: Int] = [:]
            func add(_ bytes: ArraySlice<UInt8>) throws {
                number += 1
                guard bytes.contains(where: { $0 > 0x20 }) else { return }
                let line = BatchRun.Line(number: number, bytes: Array(bytes))
                let id = (try? line.bytes.withUnsafeBytes { try JSONValue.parse($0) })?["custom_id"]?.string
                if let id {
                    if let first = seen.updateValue(number, forKey: ByteKey(text: id)) {
                        throw SigmaError(
                            .damaged, "line \(number) has the custom_id of line \(first): \(SigmaError.printable(id))",
                            path: InputFile.name(of: path), remedy: "Give every line an id of its own.")
                    }
                }
                if results?.has(customID: id, number: number) == true { return }
                all.append(line)
            }
            try InputFile.forEachPiece(of: path) { try splitter.append($0, add) }
            if !splitter.remainder.isEmpty { try add(splitter.remainder[...]) }
        }

        func take() -> BatchRun.Line? {
            guard next < all.count else { return nil }
            defer { next += 1 }
            return all[next]
        }
    }

    /// - Throws: `SigmaError` for files; `CancellationError` if the run was interrupted.
    func run() throws {
        let results = try output.map { try BatchResults(path: $0) }
        let lines = try Lines(input, without: results)
        let total = lines.all.count
        if let results, results.count > 0 {
            note("\(results.count) results are there already; \(total) lines are left.")
        }
        let name = engine.model.name
        let run = BatchRun(engine, kvType: kvType, model: name.isEmpty ? "sigma" : name, drafts: drafts)
        let begin = monotonicTime()
        var bar = ProgressBar("batch")
        try run.answer(lines: lines.take, isStopped: { Interrupt.isRequested }) { progress in
            let seconds = monotonicTime() - begin
            bar.relabel(
                "batch: \(Int(Double(progress.generatedTokens) / max(seconds, 1e-3))) tokens/s, \(progress.running) at once"
            )
            bar.update(Double(progress.lines) / Double(max(1, total)))
        } write: { result in
            if let results {
                try results.write(result.json)
            } else {
                try StandardOutput.writeJSON(result.json + "\n")
                try StandardOutput.flush()
            }
        }
        bar.finish()
        let (progress, seconds) = (run.progress, monotonicTime() - begin)
        note(
            "\(progress.lines) lines (\(progress.failures) with an error), \(progress.promptTokens) prompt tokens and \(progress.generatedTokens) tokens in \(Int(seconds.rounded())) s"
        )
        if Interrupt.isRequested { throw CancellationError() }
    }
}
