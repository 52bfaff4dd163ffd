// Inputs, embeddings, and products of few and many rows.
#include "check.h"
#include "sigma_half.h"
#include "sigma_kernels.h"

namespace {

const int packed_types[] = {SIGMA_Q8_0, SIGMA_Q4_0, SIGMA_Q4_K, SIGMA_Q6_K};
const int float_types[] = {SIGMA_F32, SIGMA_F16, SIGMA_BF16};

// An input of each kind, with its values in fp64.
struct Input {
    int kind, rows, columns;
    float epsilon = 1e-6f;
    Memory<float> values, other;
    std::vector<double> exact;  // [rows, columns]

    Input(int kind, int rows, int columns, uint64_t seed)
        : kind(kind), rows(rows), columns(columns), values(uneven_row((size_t)rows * columns, seed, kind == SIGMA_CUDA_GATED ? 20 : 3)),
          other(uneven_row((size_t)(kind == SIGMA_CUDA_GATED ? rows : 1) * columns, seed + 1, 2)), exact((size_t)rows * columns) {
        for (int row = 0; row < rows; row++) {
            double squares = 0;
            for (int c = 0; c < columns; c++) squares += (double)values[row * columns + c] * values[row * columns + c];
            const double factor = 1 / sqrt(squares / columns + epsilon);
            for (int c = 0; c < columns; c++) {
                const double x = values[row * columns + c];
                exact[row * columns + c] = kind == SIGMA_CUDA_NORMED ? x * factor * other[c]
                    : kind == SIGMA_CUDA_GATED ? x / (1 + exp(-x)) * other[row * columns + c]
                                               : x;
            }
        }
    }
    sigma_cuda_input parameters() const { return {values.address(), other.address(), kind, columns, epsilon, 0}; }
};

// What `sigma_prepare` makes of an input.
struct Prepared {
    Memory<float> floats;
    Memory<sigma_cuda_block> blocks;

    explicit Prepared(const Input &input)
        : floats((size_t)input.rows * input.columns), blocks((size_t)input.rows * (input.columns / 32)) {
        sigma_cuda_prepare p = {input.parameters(), floats.address(), input.columns % 32 ? 0 : blocks.address(), input.rows, 0};
        LAUNCH(prepare, p);
    }
    sigma_cuda_input parameters(int columns) const {
        return {floats.address(), blocks.address(), SIGMA_CUDA_PREPARED, columns, 0, 0};
    }
};

void check_block(const float *x, const sigma_cuda_block &block, long a, long b) {
    float most = 0;
    for (int i = 0; i < 32; i++) most = fmaxf(most, fabsf(x[i]));
    const float scale = most / 127.0f, inverse = most > 0 ? 127.0f / most : 0.0f;
    int sum = 0, first = 0;
    for (int i = 0; i < 32; i++) {
        // Ties cannot be told apart by the product alone: the kernel rounds product and sum at once.
        const int q = (int)rint((double)x[i] * inverse);
        sum += q;
        if (i < 16) first += q;
        expect(block.q[8 * (i % 16 / 4) + i / 16 * 4 + i % 4] == q, "quant", a, b, i);
    }
    expect(same_bits(block.scale, scale), "scale", a, b);
    expect(block.sum == sum && block.first == first, "sums", a, b);
    expect(same_bits(block.scaled_sum, scale * (float)sum), "scaled sum", a, b);
}

void check_product(int type, int kind, int rows, int outputs, int columns, uint64_t seed) {
    const Matrix matrix(type, outputs, columns, seed);
    const Memory<unsigned char> weights(matrix.bytes);
    const Input input(kind, rows, columns, seed + 2);
    const Prepared prepared(input);
    const bool is_packed = sigma_cuda_is_packed(type);
    const int stride = outputs + 3;
    const Memory<float> bias(uneven_row(outputs, seed + 3, 1));
    const std::vector<float> before = uneven_row((size_t)rows * stride, seed + 4, 1);
    const bool with_bias = seed % 2, adds = seed % 3 == 0;
    const auto product = [&](Memory<float> &out) {
        return sigma_cuda_product{matrix.at(weights.address()), with_bias ? bias.address() : 0, out.address(), stride, adds};
    };

    // Against fp64, from the activations as they were prepared.
    Memory<float> many(before);
    sigma_cuda_multiply m = {};
    m.input = prepared.parameters(columns);
    m.products[0] = product(many);
    m.count = 1;
    m.rows = rows;
    LAUNCH(multiply, m);
    for (int row = 0; row < rows; row++) {
        std::vector<double> x(columns);
        if (is_packed) x = block_values(&prepared.blocks[(size_t)row * (columns / 32)], columns);
        else
            for (int c = 0; c < columns; c++) x[c] = prepared.floats[(size_t)row * columns + c];
        for (int j = 0; j < outputs; j++) {
            double sum = 0, size = 0;
            for (int c = 0; c < columns; c++) {
                const double term = x[c] * matrix.values[(size_t)j * columns + c];
                sum += term;
                size += fabs(term);
            }
            if (type == SIGMA_Q4_K)
                // What the minimum takes off and what it is taken off from are larger than their difference.
                for (int c = 0; c < columns; c++) size += fabs(x[c]) * 63 * 0.02;
            if (with_bias) sum += bias[j];
            if (adds) sum += before[(size_t)row * stride + j];
            const double terms = is_packed ? columns / 16 + 8 : columns / 32 + 16;
            expect_near(many[(size_t)row * stride + j], sum, terms * UNIT_ROUNDING * (size + fabs(sum) + 2), "product", row, j, columns);
        }
        for (int j = outputs; j < stride; j++) expect(same_bits(many[(size_t)row * stride + j], before[(size_t)row * stride + j]), "beside", row, j);
    }

    // The kernel for few rows, with its input prepared or not: the same bits for each row, whatever is beside it.
    for (int first = 0; first < rows; first += SIGMA_CUDA_FEW_ROWS) {
        const int count = rows - first < SIGMA_CUDA_FEW_ROWS ? rows - first : SIGMA_CUDA_FEW_ROWS;
        for (int is_prepared = 0; is_prepared < 2; is_prepared++) {
            Memory<float> few(std::vector<float>(before.begin() + (size_t)first * stride, before.begin() + (size_t)(first + count) * stride));
            sigma_cuda_project f = {};
            f.input = is_prepared ? prepared.parameters(columns) : input.parameters();
            f.input.values += (size_t)first * columns * 4;
            if (is_prepared) f.input.other += (size_t)first * (columns / 32) * sizeof(sigma_cuda_block);
            if (kind == SIGMA_CUDA_GATED && !is_prepared) f.input.other += (size_t)first * columns * 4;
            f.products[0] = product(few);
            f.count = 1;
            f.rows = count;
            LAUNCH(project, f);
            for (int row = 0; row < count; row++)
                for (int j = 0; j < stride; j++)
                    expect(same_bits(few[(size_t)row * stride + j], many[(size_t)(first + row) * stride + j]), "few rows", first + row, j, is_prepared);
        }
    }
}

}  // namespace

void check_inputs() {
    begin("prepare");
    uint64_t seed = 1;
    for (int kind : {SIGMA_CUDA_NORMED, SIGMA_CUDA_FLOATS, SIGMA_CUDA_GATED})
        for (int columns : {32, 96, 256, 288, 1536, 1, 7, 50}) {
            const Input input(kind, 3, columns, seed++);
            const Prepared prepared(input);
            for (int row = 0; row < 3; row++) {
                for (int c = 0; c < columns; c++) {
                    const double exact = input.exact[row * columns + c];
                    // Norm: half of the sum's error, a root, a quotient and two products. silu: the exponential's 4 units and four operations.
                    expect_near(prepared.floats[(size_t)row * columns + c], exact, 20 * UNIT_ROUNDING * fabs(exact) + 1e-37, "value", kind, columns, c);
                }
                for (int b = 0; columns % 32 == 0 && b < columns / 32; b++)
                    check_block(&prepared.floats[(size_t)row * columns + 32 * b], prepared.blocks[(size_t)row * (columns / 32) + b], columns, b);
            }
        }
    Input zeros(SIGMA_CUDA_FLOATS, 1, 64, 9);
    for (int c = 0; c < 64; c++) zeros.values[c] = c == 40 ? NAN : 0.0f;
    const Prepared prepared(zeros);
    expect(prepared.blocks[0].scale == 0 && prepared.blocks[0].q[3] == 0 && prepared.blocks[0].sum == 0, "block of zeros");
    expect(isnan(prepared.blocks[1].scale), "block with what is no number");

    begin("embed");
    for (int type : {SIGMA_Q8_0, SIGMA_Q4_0, SIGMA_Q4_K, SIGMA_Q6_K, SIGMA_F32, SIGMA_F16, SIGMA_BF16}) {
        const Matrix matrix(type, 37, 512, (uint64_t)type + 5);
        const Memory<unsigned char> weights(matrix.bytes);
        const Memory<sigma_cuda_row> rows(std::vector<sigma_cuda_row>{{36, 0, 0, 0}, {0, 0, 0, 0}, {17, 0, 0, 0}});
        Memory<float> residual(3 * 512);
        sigma_cuda_embed p = {matrix.at(weights.address()), rows.address(), residual.address(), 3, 0};
        LAUNCH(embed, p);
        for (int row = 0; row < 3; row++)
            for (int c = 0; c < 512; c++)
                expect(same_bits(residual[row * 512 + c], matrix.values[(size_t)rows[row].token * 512 + c]), "value", type, row, c);
    }
}

void check_products() {
    uint64_t seed = 100;
    for (int type : packed_types) {
        begin(type == SIGMA_Q8_0 ? "products q8_0" : type == SIGMA_Q4_0 ? "products q4_0" : type == SIGMA_Q4_K ? "products q4_k" : "products q6_k");
        for (int columns : {256, 768, 1536, 2560}) check_product(type, (int)(seed % 3), 1 + (int)(seed % 9), 40, columns, seed), seed++;
        for (int rows : {1, 2, 7, 8, 9, 64, 65, 130}) check_product(type, (int)(seed % 3), rows, 33, 512, seed), seed++;
        for (int outputs : {1, 15, 16, 17, 130}) check_product(type, (int)(seed % 3), 3, outputs, 256, seed), seed++;
        if (type == SIGMA_Q8_0 || type == SIGMA_Q4_0)
            for (int columns : {32, 96, 288, 480}) check_product(type, (int)(seed % 3), 11, 20, columns, seed), seed++;
    }
    begin("products of floats");
    for (int type : float_types) {
        for (int columns : {1, 7, 48, 52, 256, 300, 1536}) check_product(type, (int)(seed % 3), 1 + (int)(seed % 9), 21, columns, seed), seed++;
        for (int rows : {8, 9, 67}) check_product(type, (int)(seed % 3), rows, 35, 96, seed), seed++;
    }

    begin("products beside each other");
    // Four matrices of different types and heights of one input, in one launch.
    const int columns = 512, rows = 5, types[4] = {SIGMA_Q4_K, SIGMA_BF16, SIGMA_Q8_0, SIGMA_Q6_K}, outputs[4] = {48, 9, 16, 70};
    const Input input(SIGMA_CUDA_NORMED, rows, columns, 77);
    const Prepared prepared(input);
    sigma_cuda_project all = {};
    sigma_cuda_multiply many = {};
    std::vector<Memory<unsigned char> *> weights;
    Memory<float> together(rows * 200), on_cores(rows * 200), alone(rows * 200);
    int first = 0;
    for (int i = 0; i < 4; i++) {
        const Matrix matrix(types[i], outputs[i], columns, 300 + i);
        weights.push_back(new Memory<unsigned char>(matrix.bytes));
        sigma_cuda_project one = {};
        one.input = all.input = input.parameters();
        one.count = 1;
        one.rows = all.rows = many.rows = rows;
        one.products[0] = {matrix.at(weights[i]->address()), 0, alone.address(first), 200, 0};
        all.products[i] = many.products[i] = one.products[0];
        all.products[i].output = together.address(first);
        many.products[i].output = on_cores.address(first);
        LAUNCH(project, one);
        first += outputs[i];
    }
    all.count = many.count = 4;
    many.input = prepared.parameters(columns);
    LAUNCH(project, all);
    LAUNCH(multiply, many);
    for (int row = 0; row < rows; row++)
        for (int j = 0; j < first; j++) {
            expect(same_bits(together[row * 200 + j], alone[row * 200 + j]), "one launch", row, j);
            expect(same_bits(on_cores[row * 200 + j], alone[row * 200 + j]), "one launch of many rows", row, j);
        }
    for (auto *memory : weights) delete memory;
}
