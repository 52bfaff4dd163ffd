/// What a GGUF file is for, where it is not for running a language model. Other tools keep many things in the format.
package enum GGUFPurpose: Equatable, Sendable {
    case adapter, projector, importance, vocabulary
    /// A part of a split model that is not its first.
    case laterPart(number: Int, count: Int)
    /// `general.type` in words that we don't know.
    case other(String)
}

extension GGUFFile {
    /// Nil for a model.
    package var purpose: GGUFPurpose? {
        if let number = self["split.no"]?.integer, number > 0 {
            return .laterPart(number: number + 1, count: self["split.count"]?.integer ?? 0)
        }
        let architecture = self["general.architecture"]?.string
        switch self["general.type"]?.string {
        case "adapter"?: return .adapter
        case "mmproj"?: return .projector
        case "imatrix"?: return .importance
        case "vocab"?: return .vocabulary
        case nil, "model"?: break
        case let other?: return .other(other)
        }
        // Files from before `general.type` was written.
        if architecture == "clip" { return .projector }
        if self["adapter.type"] != nil { return .adapter }
        if self["imatrix.datasets"] != nil || self["imatrix.chunk_count"] != nil { return .importance }
        if tensors.isEmpty, self["split.count"] == nil, self["tokenizer.ggml.tokens"] != nil { return .vocabulary }
        return nil
    }

    /// - Throws: `SigmaError` (`.damaged`) if this is not a model, or not its first part.
    package func checkIsModel() throws {
        guard let purpose else { return }
        let path = file.path
        func failure(_ what: String, _ remedy: Remedy?, item: String? = "general.type") -> SigmaError {
            SigmaError(.damaged, "expected a model, found \(what)", path: path, item: item, remedy: remedy)
        }
        switch purpose {
        case .adapter:
            throw failure(
                "an adapter (LoRA)", "Merge it into its base model, for example with llama.cpp's export-lora.")
        case .projector:
            throw failure("the projector of a vision or audio model", "Name the file of the language model itself.")
        case .importance:
            throw failure(
                "an importance matrix of llama.cpp's", "Name the file of the model that it was made of.")
        case .vocabulary: throw failure("a vocabulary without weights", "Name a file that has the model's tensors.")
        case .laterPart(let number, let count):
            let first = firstPart(of: count).map { shellQuoted($0) }
            throw failure(
                "part \(number) of \(count) of one",
                "Name the first part\(first.map { ", \($0)" } ?? ""); the others must be beside it.", item: "split.no")
        case .other(let type): throw failure("a file of type '\(type)'", nil)
        }
    }

    /// The name of a split model's first part, by this part's own.
    private func firstPart(of count: Int) -> String? {
        let (folder, name) = splitPath(file.path)
        guard name.hasSuffix(".gguf") else { return nil }
        var parts = name.dropLast(".gguf".count).split(separator: "-", omittingEmptySubsequences: false).map(
            String.init)
        guard parts.count >= 4, parts[parts.count - 2] == "of", Int(parts[parts.count - 1]) == count else { return nil }
        let digits = parts[parts.count - 3].utf8.count
        parts[parts.count - 3] = String(repeating: "0", count: max(0, digits - 1)) + "1"
        let first = parts.joined(separator: "-") + ".gguf"
        return file.path.contains("/") ? (folder == "/" ? "/" : folder + "/") + first : first
    }
}
