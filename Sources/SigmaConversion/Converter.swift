import Sigma

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Makes native model files.
package struct Converter {
    package struct Options: Sendable {
        /// A checkpoint folder.
        package var input: String
        package var output: String
        /// Of experts, dense layers, attention and embedding.
        package var type: WeightType
        /// Of the output head and a tied embedding; nil is `type`.
        package var outputType: WeightType?
        package var overrides: Overrides
        /// 0: as many as there are processors.
        package var threads: Int

        package init(
            input: String, output: String, type: WeightType = .q8_0, outputType: WeightType? = nil,
            overrides: Overrides, threads: Int = 0
        ) {
            self.input = input
            self.output = output
            self.type = type
            self.outputType = outputType
            self.overrides = overrides
            self.threads = threads
        }
    }

    /// Converts a checkpoint. `options.output` appears, or is replaced, whole or not at all.
    ///
    /// - Parameters:
    ///   - warn: called for each choice that the user should know of, before the weights are converted.
    ///   - progress: the share that is done, 0...1; on the calling thread.
    ///   - isCancelled: asked often; the conversion then ends with `.interrupted`.
    /// - Throws: `SigmaError`.
    package static func convert(
        _ options: Options, warn: (String) -> Void = { _ in }, progress: @escaping (Double) -> Void = { _ in },
        isCancelled: @escaping () -> Bool = { false }
    ) throws {
        let checkpoint = try Checkpoint(folder: options.input)
        let configuration = try CheckpointConfiguration(checkpoint, overrides: options.overrides)
        let ignoresUnknown: Bool
        switch options.overrides.text("unknown_tensors") {
        case nil, "refuse"?: ignoresUnknown = false
        case "ignore"?: ignoresUnknown = true
        case let other?:
            throw SigmaError(.usage, "expected --override unknown_tensors=ignore or refuse, found '\(other)'")
        }
        let plan = try WeightPlan(
            checkpoint, configuration.model, type: options.type, outputType: options.outputType ?? options.type,
            ignoresUnknown: ignoresUnknown)
        let tokenizer = try TokenizerImport(checkpoint.folder, configuration, overrides: options.overrides)
        if let definition = tokenizer.definition {
            // What could not be loaded must not be written.
            do { _ = try Tokenizer(definition) } catch { throw error.inFile(checkpoint.folder) }
        }
        try refuseOverwriting(checkpoint, tokenizer, options.output)
        for warning in checkpoint.warnings + configuration.warnings + plan.warnings + tokenizer.warnings {
            warn(warning)
        }

        var header = GGUFWriter(architecture: ModelFileFormat.architecture, alignment: ModelFileFormat.alignment)
        header.set(ModelFileFormat.Key.version, ModelFileFormat.version)
        header.set("general.quantization_version", UInt32(2))
        header.set(ModelFileFormat.Key.name, options.overrides.text("name") ?? sourceName(checkpoint))
        header.set(ModelFileFormat.Key.sourceArchitecture, configuration.architecture)
        ModelFileMetadata.write(configuration.model, to: &header)
        ModelFileMetadata.write(tokenizer.chatFormat, to: &header)
        if let definition = tokenizer.definition { ModelFileTokenizer.write(definition, to: &header) }
        let writer = ModelFileWriter(
            plan: plan, threads: options.threads > 0 ? options.threads : Workers.processorCount, progress: progress,
            isCancelled: isCancelled)
        try writer.write(header, to: options.output, checkIntact: checkpoint.checkIntact)
    }

    /// What the config calls the model (without an owner), else the folder's name.
    private static func sourceName(_ checkpoint: Checkpoint) -> String {
        func lastPart(_ text: String) -> String? {
            guard let part = text.split(separator: "/").last, part != ".", part != ".." else { return nil }
            return String(part)
        }
        if let name = checkpoint.config["_name_or_path"]?.string.flatMap(lastPart) { return name }
        if let resolved = realpath(checkpoint.folder, nil) {
            defer { free(resolved) }
            return lastPart(String(cString: resolved)) ?? "model"
        }
        return lastPart(checkpoint.folder) ?? "model"
    }

    /// The output must not be one of the files that are read (under whatever name).
    private static func refuseOverwriting(_ checkpoint: Checkpoint, _ tokenizer: TokenizerImport, _ output: String)
        throws
    {
        var target = stat()
        guard stat(output, &target) == 0 else { return }
        let inputs =
            checkpoint.shards.map(\.file.path) + tokenizer.files
            + ["/config.json", "/generation_config.json", "/model.safetensors.index.json"].map {
                checkpoint.folder + $0
            }
        for input in inputs {
            var status = stat()
            if stat(input, &status) == 0, status.st_dev == target.st_dev, status.st_ino == target.st_ino {
                throw SigmaError(.usage, "the output would overwrite the input \(input)", path: output)
            }
        }
    }
}
