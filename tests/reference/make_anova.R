## Analyses of variance by lmerTest of the unbalanced data in anova.csv, written to anova.json:
##     Rscript tests/reference/make_anova.R
## Needs R with lmerTest, pbkrtest and jsonlite. `cell` leaves out the cell a = "r", b = "w".
suppressMessages({library(lmerTest); library(jsonlite)})
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
data <- read.csv(file.path(here, "anova.csv"), stringsAsFactors = TRUE)
data$g <- factor(data$g)
control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 1e-3, rhoend = 1e-12, maxfun = 1e5))

analyse <- function(formula, contrasts = NULL, cell = TRUE) {
  frame <- if (cell) data else droplevels(subset(data, !(a == "r" & b == "w")))
  model <- suppressWarnings(suppressMessages(lmer(as.formula(formula), frame, contrasts = contrasts, control = control)))
  one <- function(type, ddf) {
    table <- suppressMessages(anova(model, type = type, ddf = ddf))
    list(type = type, ddf = ddf, terms = rownames(table), table = unname(as.matrix(table)))
  }
  tables <- lapply(c("I", "II", "III"), one, ddf = "Satterthwaite")
  list(formula = formula, contrasts = contrasts, cell = cell,
       tables = c(tables, list(one("III", "Kenward-Roger"))))
}

sum_helmert <- list(a = "contr.sum", b = "contr.helmert")
out <- list(
  analyse("y ~ a * b * x + (x | g)"), analyse("y ~ a * b * x + (x | g)", sum_helmert),
  analyse("y ~ a * b + z + (1 | g)"), analyse("y ~ a * b + z + (1 | g)", cell = FALSE),
  analyse("y ~ a * b + z + (1 | g)", list(a = "contr.sum", b = "contr.sum"), cell = FALSE),
  analyse("y ~ 0 + a + b + (1 | g)"), analyse("y ~ 0 + a * x + (1 | g)"), analyse("y ~ x * z + (1 | g)"),
  analyse("y ~ a + poly(x, 2) + (1 | g)"), analyse("y ~ a + (1 | g)", list(a = "contr.sum")),
  analyse("y ~ a:x + (1 | g)", list(a = "contr.sum")))
write(toJSON(out, auto_unbox = TRUE, digits = NA, pretty = 1), file.path(here, "anova.json"))
