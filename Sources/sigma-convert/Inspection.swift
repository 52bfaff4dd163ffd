import Sigma
import SigmaCommand

/// `--inspect FILE`: what is in a native model file, or in any other GGUF file.
struct Inspection {
    let path: String
    let verifies: Bool

    func run() throws {
        let gguf = try GGUFFile(path: path)
        if Self.isNative(gguf) {
            let native = try ModelFile(path: path)
            try describe(native)
            if verifies { try verify(native) }
        } else {
            guard !verifies else { throw SigmaError(.damaged, "only native model files have checksums", path: path) }
            try line("file", "\(path) (\(ByteSize.text(gguf.file.bytes.count)))")
            try line(
                "format", "GGUF \(gguf.version), architecture \(gguf["general.architecture"]?.string ?? "not named")")
            try listKeys(gguf)
        }
        try listTensors(gguf)
    }

    /// Whether it is for this engine, of whichever version: `--plain-gguf` writes files of the same architecture.
    private static func isNative(_ file: GGUFFile) -> Bool {
        file["general.architecture"]?.string == ModelFileFormat.architecture && file[ModelFileFormat.Key.version] != nil
    }

    private func verify(_ file: ModelFile) throws {
        Interrupt.install(secondEndsProcess: true)
        var bar = ProgressBar("verifying")
        try file.verify { share in
            bar.update(share)
            return !Interrupt.isRequested
        }
        bar.finish()
        try line("checksums", "all \(file.recordCount) records are intact")
    }

    // MARK: native files

    private func describe(_ file: ModelFile) throws {
        let c = file.configuration
        try line("file", "\(path) (\(ByteSize.text(file.byteCount)))")
        try line("format", "sigma \(ModelFileFormat.version), GGUF \(file.gguf.version)")
        try line("name", file.name)
        if let source = file.gguf[ModelFileFormat.Key.sourceArchitecture]?.string { try line("source", source) }
        try line("layers", "\(c.layerCount), hidden size \(c.hiddenSize), context \(c.contextLength)")
        try line(
            "attention",
            "\(c.headCount) query heads, \(c.kvHeadCount) key-value heads of \(c.headDim)\(c.qkNorm ? ", q/k norm" : "")"
        )
        try line("rope", "base \(c.ropeTheta)\(ropeScaling(c.ropeScaling))")
        if c.expertCount > 0 {
            try line("experts", experts(c))
            try line("router", router(c))
        }
        if c.expertsPerToken.contains(0) {
            try line(
                "dense", "\(c.expertsPerToken.count { $0 == 0 }) layers, intermediate size \(c.denseIntermediateSize)")
        }
        try line("vocabulary", "\(c.vocabularySize)\(c.tiedEmbeddings ? ", the embedding is the output head" : "")")
        if let screen = file.weights.screen {
            try line(
                "head",
                "screened, planes of \(ByteSize.text(screen.coarseBytes)) and \(ByteSize.text(screen.fineBytes))")
        }
        try line("tokenizer", try tokenizer(file))
        if let chat = file.chatFormat {
            let opens =
                chat.opensThinking ? "prompt opens <think>" : chat.thinks ? "model opens <think>" : "no thinking"
            let stops = chat.stopTokens.map { "\($0)" }.joined(separator: " ")
            try line("chat", "\(chat.style.rawValue), \(opens), stop tokens: \(stops.isEmpty ? "none" : stops)")
            try line("calls", chat.tools.calls.rawValue)
            if !chat.date.isEmpty { try line("date", chat.date) }
        }
        try line("parameters", parameters(file))
    }

    private func ropeScaling(_ scaling: ModelConfiguration.RopeScaling) -> String {
        switch scaling {
        case .none: ""
        case .linear(let factor): ", linear scaling by \(factor)"
        case .divided(let divisors): ", frequencies divided by 1 to \(divisors.max() ?? 1)"
        case .yarn(let factor, let original, _, _, _, _): ", yarn by \(factor) from \(original)"
        }
    }

    private func experts(_ c: ModelConfiguration) -> String {
        let used = Set(c.expertsPerToken.filter { $0 > 0 })
        var text = "\(c.expertCount) a layer, intermediate size \(c.expertIntermediateSize), "
        if used.count == 1 {
            text += "\(used.first!) for each token"
        } else {
            text += "for each token by layer: \(c.expertsPerToken.map { "\($0)" }.joined(separator: " "))"
        }
        if c.sharedExpertCount > 0 { text += ", \(c.sharedExpertCount) shared" }
        return text
    }

    private func router(_ c: ModelConfiguration) -> String {
        let rule =
            switch c.weightNormalization {
            case .never: "weights as they are"
            case .whenSeveral: "weights normalised where several are chosen"
            case .always: "weights normalised"
            }
        return "\(c.scoring), \(rule), scale \(c.routedScalingFactor)"
    }

    private func tokenizer(_ file: ModelFile) throws -> String {
        guard let definition = try file.tokenizerDefinition() else { return "none" }
        let rule =
            switch definition.mergeRule {
            case .byRank: "merges by rank"
            case .listed(let pairs, _): "\(pairs.count) merges"
            }
        let used = definition.kinds.count { $0 != .unused }
        let bos = definition.bos.map { ", bos \($0)\(definition.addsBos ? " (added)" : "")" } ?? ""
        let eos = definition.eos.map { ", eos \($0)" } ?? ""
        return
            "\(used) tokens, pattern \(definition.pattern.rawValue), \(rule), normalizer \(definition.normalizer.rawValue)\(bos)\(eos)"
    }

    /// Weights in all, and those that one token multiplies with (the embedding's rows are only looked up).
    private func parameters(_ file: ModelFile) -> String {
        let c = file.configuration
        let perExpert = 3 * c.hiddenSize * c.expertIntermediateSize
        var all = file.weights.denseCount
        let dense = all
        var active = all - (c.tiedEmbeddings ? 0 : c.vocabularySize * c.hiddenSize)
        for used in c.expertsPerToken where used > 0 {
            all += c.expertCount * perExpert
            active += used * perExpert
        }
        return "\(all) in all, \(active) for each token (\(dense) without experts)"
    }

    // MARK: any file

    private func line(_ label: String, _ text: String) throws {
        try StandardOutput.write(label.padded(to: 12) + SigmaError.printable(text) + "\n")
    }

    private func listKeys(_ gguf: GGUFFile) throws {
        for entry in gguf.entries {
            let text: String =
                switch entry.value {
                case .integer(_, let value): "\(value)"
                case .large(let value): "\(value)"
                case .float(_, let value): "\(value)"
                case .bool(let value): "\(value)"
                case .string(let value): value.count > 60 ? value.prefix(60) + "..." : value
                case .array(let array): "\(array.count) x \(array.kind.name)"
                case .malformedText: entry.value.kindName
                }
            try StandardOutput.write("\(SigmaError.printable(entry.key)) = \(SigmaError.printable(text))\n")
        }
    }

    private func listTensors(_ gguf: GGUFFile) throws {
        try StandardOutput.write("\n" + row("tensor", "type", "dimensions", "bytes", "offset"))
        for tensor in gguf.tensors {
            try StandardOutput.write(
                row(
                    SigmaError.printable(tensor.name), tensor.type.name,
                    tensor.dimensions.map { "\($0)" }.joined(separator: " x "), "\(tensor.byteCount)",
                    "\(tensor.offset)"))
        }
    }

    private func row(_ name: String, _ type: String, _ dimensions: String, _ bytes: String, _ offset: String) -> String
    {
        name.padded(to: 32) + type.padded(to: 8) + dimensions.padded(to: 20) + bytes.padded(to: 14, right: true)
            + offset.padded(to: 16, right: true) + "\n"
    }
}

extension ModelWeights {
    /// Weights of everything but the routed experts.
    fileprivate var denseCount: Int {
        func count(_ matrices: [WeightMatrix]) -> Int { matrices.reduce(0) { $0 + $1.rows * $1.columns } }
        let isTied = head.data == embedding.data
        return count(isTied ? [embedding] : [embedding, head]) + finalNorm.values.count
            + layers.reduce(0) { sum, layer in
                var matrices = [layer.query, layer.key, layer.value, layer.output]
                var vectors: [FloatVector?] = [
                    layer.attentionNorm, layer.feedForwardNorm, layer.queryNorm, layer.keyNorm, layer.queryBias,
                    layer.keyBias, layer.valueBias, layer.outputBias,
                ]
                switch layer.feedForward {
                case .dense(let mlp): matrices += [mlp.gate, mlp.up, mlp.down]
                case .mixture(let router, let bias, _, let shared):
                    matrices.append(router)
                    vectors.append(bias)
                    if let shared { matrices += [shared.gate, shared.up, shared.down] }
                }
                return sum + count(matrices) + vectors.reduce(0) { $0 + ($1?.values.count ?? 0) }
            }
    }
}

extension String {
    /// At least `width` characters.
    fileprivate func padded(to width: Int, right: Bool = false) -> String {
        let space = String(repeating: " ", count: max(0, width - count))
        return right ? space + self : self + space + (space.isEmpty ? " " : "")
    }
}
