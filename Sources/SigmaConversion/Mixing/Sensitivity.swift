import Sigma

/// How much a model's distributions change when one part of its weights is quantized, for every part: what `sigma-eval sensitivity`
/// measures, and what a mix of types is chosen by.
///
/// One part at a time was quantized to one type, and the divergence was measured over a text. Errors of other types are known, and a
/// small divergence grows with the squared error of the weights: that gives its estimate for every type.
package struct Sensitivity: Sendable, Equatable {
    package struct Part: Sendable, Equatable {
        /// As `WeightPlan.Part` has them.
        package var name: String
        package var matrices: Int
        package var rows: Int
        package var columns: Int
        /// The type that was measured.
        package var type: WeightType
        /// Mean KL(model || model with the part in `type`), in nats per token.
        package var divergence: Double
        /// Mean squared error of the part's weights, by type; columns weighed by their importance where that is known.
        package var errors: [WeightType: Double]

        package init(
            name: String, matrices: Int, rows: Int, columns: Int, type: WeightType, divergence: Double,
            errors: [WeightType: Double]
        ) {
            self.name = name
            self.matrices = matrices
            self.rows = rows
            self.columns = columns
            self.type = type
            self.divergence = divergence
            self.errors = errors
        }

        /// The estimate for another type, in nats per token; nil if its error is not known.
        package func divergence(_ other: WeightType) -> Double? {
            guard other.isQuantized else { return 0 }
            guard let error = errors[other], let measured = errors[type] else { return nil }
            return measured > 0 ? divergence * error / measured : 0
        }
    }

    package var modelName: String
    /// Scored tokens.
    package var tokenCount: Int
    /// In the order of the model file.
    package var parts: [Part]

    package init(modelName: String, tokenCount: Int, parts: [Part]) {
        self.modelName = modelName
        self.tokenCount = tokenCount
        self.parts = parts
    }

    // MARK: - The file

    private static let format = "sigma-sensitivity"
    private static let version: Int64 = 1

    package var json: String {
        var json = JSONWriter()
        json.object {
            $0.field("format", Self.format)
            $0.field("version", Self.version)
            $0.field("model", modelName)
            $0.field("tokens", tokenCount)
            $0.array("parts") { list in
                for part in parts {
                    list.object {
                        $0.field("name", part.name)
                        $0.field("matrices", part.matrices)
                        $0.field("rows", part.rows)
                        $0.field("columns", part.columns)
                        $0.field("type", part.type.name)
                        $0.field("kl", part.divergence)
                        $0.object("errors") { errors in
                            for (type, error) in part.errors.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
                                errors.field(type.name, error)
                            }
                        }
                    }
                }
            }
        }
        return json.text + "\n"
    }

    /// Reads a file, which must be of a model with these parts.
    ///
    /// - Throws: `SigmaError`: `.noInput` where there is no such file, `.damaged` for anything else that is wrong with it.
    package init(path: String, for plan: [WeightPlan.Part]) throws {
        let value = try JSONValue.parse(file: path, limit: 1 << 26)
        func failure(_ item: String, _ message: String) -> SigmaError {
            SigmaError(
                .damaged, message, path: path, item: item, remedy: "Make one of this model with sigma-eval sensitivity."
            )
        }
        guard value["format"]?.string == Self.format else {
            throw failure("format", "expected the sensitivities that sigma-eval measures ('\(Self.format)')")
        }
        guard let version = value["version"]?.integer, version == Self.version else {
            throw failure("version", "expected \(Self.version), found \(value["version"]?.kind ?? "nothing")")
        }
        guard let name = value["model"]?.string, let tokens = value["tokens"]?.integer, tokens > 0,
            let list = value["parts"]?.array
        else { throw failure("parts", "expected model, tokens and parts") }
        guard list.count == plan.count else {
            throw failure(
                "parts", "it was measured on another model: \(list.count) tensors, and this one has \(plan.count)")
        }
        let parts = try zip(list, plan).map { value, expected in
            let part = try Part(value, failure)
            guard part.name == expected.name, part.matrices == expected.matrices.count, part.rows == expected.rows,
                part.columns == expected.columns
            else {
                throw failure(
                    part.name,
                    "it was measured on another model: \(part.matrices) x \(part.rows) x \(part.columns) there, and here "
                        + "\(expected.name) is \(expected.matrices.count) x \(expected.rows) x \(expected.columns)")
            }
            return part
        }
        self.init(modelName: name, tokenCount: Int(clamping: tokens), parts: parts)
    }
}

extension Sensitivity.Part {
    fileprivate init(_ value: JSONValue, _ failure: (_ item: String, _ message: String) -> SigmaError) throws {
        func size(_ key: String) -> Int? { value[key]?.integer.flatMap { Int(exactly: $0) } }
        guard let name = value["name"]?.string, let matrices = size("matrices"), let rows = size("rows"),
            let columns = size("columns")
        else { throw failure("parts", "expected name, matrices, rows and columns of every part") }
        func type(_ text: String?) throws -> WeightType {
            guard let type = WeightType.allCases.first(where: { $0.name == text }) else {
                throw failure(name, "expected a type of weights, found \(text.map { "'\($0)'" } ?? "none")")
            }
            return type
        }
        func number(_ value: JSONValue?) throws -> Double {
            guard let number = value?.double, number.isFinite, number >= 0 else {
                throw failure(name, "expected numbers that are not negative, found \(value?.kind ?? "nothing")")
            }
            return number
        }
        var errors: [WeightType: Double] = [:]
        guard let object = value["errors"]?.object else { throw failure(name, "expected errors by type") }
        for (key, value) in zip(object.keys, object.values) { errors[try type(key)] = try number(value) }
        let measured = try type(value["type"]?.string)
        guard errors[measured] != nil else { throw failure(name, "the error of \(measured.name) is missing") }
        self.init(
            name: name, matrices: matrices, rows: rows, columns: columns, type: measured,
            divergence: try number(value["kl"]), errors: errors)
        guard errors.keys.allSatisfy({ divergence($0)?.isFinite == true }) else {
            throw failure(name, "the divergence and the errors give no finite estimates")
        }
    }
}
